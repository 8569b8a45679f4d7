//! Cuts a configuration file into statements, as `ngx_conf_read_token`
//! (`src/core/ngx_conf_file.c`) does.

/// A directive's words, or the end of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// Words ended by `;`.
    Simple(Vec<String>),
    /// Words ended by `{`.
    Block(Vec<String>),
    /// `}`.
    Close,
    /// End of file.
    End,
}

/// What is wrong, and in which line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct SyntaxError {
    line: usize,
    what: &'static str,
}

/// Reads statements one after another.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn next_statement(&mut self) -> Result<Statement, SyntaxError> {
        let mut words = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                None if words.is_empty() => return Ok(Statement::End),
                None => return Err(self.error("the file ends within a directive")),
                Some(b';') | Some(b'{') if words.is_empty() => {
                    return Err(self.error("a directive has no name"));
                }
                Some(b';') => {
                    self.at += 1;
                    return Ok(Statement::Simple(words));
                }
                Some(b'{') => {
                    self.at += 1;
                    return Ok(Statement::Block(words));
                }
                Some(b'}') if words.is_empty() => {
                    self.at += 1;
                    return Ok(Statement::Close);
                }
                Some(b'}') => return Err(self.error("\"}\" where \";\" is due")),
                Some(quote @ (b'"' | b'\'')) => words.push(self.quoted(quote)?),
                Some(_) => words.push(self.bare()),
            }
        }
    }

    /// Skips the body of a `*_by_lua_block` up to and with its `}`: braces count
    /// outside of Lua's strings and comments only.
    pub(super) fn skip_lua(&mut self) -> Result<(), SyntaxError> {
        let mut depth = 1_usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'{' => depth += 1,
                b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                b'"' | b'\'' => self.skip_lua_string(byte),
                b'[' => {
                    self.skip_long_bracket();
                }
                b'-' if self.peek() == Some(b'-') => {
                    self.at += 1;
                    let long = self.peek() == Some(b'[') && {
                        self.at += 1;
                        self.skip_long_bracket()
                    };
                    if !long {
                        self.skip_line();
                    }
                }
                _ => {}
            }
        }
        Err(self.error("the file ends within a Lua block"))
    }

    fn skip_lua_string(&mut self, quote: u8) {
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                // An unfinished string: Lua's error, but the block goes on.
                b'\n' => return,
                _ if byte == quote => return,
                _ => {}
            }
        }
    }

    /// After `[`: skips `=*[ ... ]=*]` if there is such a thing.
    fn skip_long_bracket(&mut self) -> bool {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let level = rest.iter().take_while(|&&byte| byte == b'=').count();
        if rest.get(level) != Some(&b'[') {
            return false;
        }
        let close = [b"]".as_slice(), &b"=".repeat(level), b"]"].concat();
        let end = memchr::memmem::find(rest, &close);
        self.at = end.map_or(self.bytes.len(), |end| self.at + end + close.len());
        true
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    /// A comment begins only where a word could.
    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => self.skip_line(),
                _ => return,
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<String, SyntaxError> {
        let opened = self.at;
        self.at += 1;
        let start = self.at;
        while let Some(byte) = self.peek() {
            if byte == b'\\' {
                self.at += 2;
                continue;
            }
            if byte == quote {
                let word = unescape(&self.bytes[start..self.at]);
                self.at += 1;
                return match self.peek() {
                    None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => Ok(word),
                    Some(_) => Err(self.error("a space is due behind a quoted word")),
                };
            }
            self.at += 1;
        }
        self.at = opened;
        Err(self.error("a quoted word has no end"))
    }

    /// A word without quotes ends at a blank, `;` or `{`, but not at the `{` of
    /// `${name}`.
    fn bare(&mut self) -> String {
        let start = self.at;
        let mut variable = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' if variable => {
                    self.at += 1;
                    continue;
                }
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => self.at += 1,
                _ => {}
            }
            variable = byte == b'$';
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
        unescape(&self.bytes[start..self.at])
    }

    fn error(&self, what: &'static str) -> SyntaxError {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        SyntaxError {
            line: 1 + memchr::memchr_iter(b'\n', before).count(),
            what,
        }
    }
}

/// Backslash before a quote or a backslash goes, `\t`, `\r` and `\n` are what they
/// are in C, and before all else it stays.
pub(super) fn unescape(raw: &[u8]) -> String {
    let mut word = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let next = bytes.peek().copied().filter(|_| byte == b'\\');
        word.push(match next {
            Some(b'"' | b'\'' | b'\\') => next.unwrap_or(byte),
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            _ => {
                word.push(byte);
                if let (Some(kept), Some(_)) = (next, bytes.next_if(|_| next.is_some())) {
                    word.push(kept);
                }
                continue;
            }
        });
        bytes.next();
    }
    String::from_utf8(word)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn statements(text: &str) -> Vec<Statement> {
        let mut tokens = Tokens::new(text.as_bytes());
        let mut found = Vec::new();
        loop {
            match tokens.next_statement().unwrap() {
                Statement::End => return found,
                statement => found.push(statement),
            }
        }
    }

    fn simple(words: &[&str]) -> Statement {
        Statement::Simple(words.iter().map(|&word| word.to_owned()).collect())
    }

    fn block(words: &[&str]) -> Statement {
        Statement::Block(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[track_caller]
    fn error(text: &str) -> String {
        let mut tokens = Tokens::new(text.as_bytes());
        loop {
            match tokens.next_statement() {
                Ok(Statement::End) => panic!("{text:?} is accepted"),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn words_end_at_blanks_semicolons_and_braces() {
        assert_eq!(
            statements("a b;c{d  e\t;\r\n}# x ; {\r\nf#g h; "),
            [
                simple(&["a", "b"]),
                block(&["c"]),
                simple(&["d", "e"]),
                Statement::Close,
                simple(&["f#g", "h"]),
            ]
        );
    }

    #[test]
    fn braces_of_variables_belong_to_the_word() {
        assert_eq!(
            statements("proxy_pass http://${name}_app$uri; if ($x){ set $y ${z}; }"),
            [
                simple(&["proxy_pass", "http://${name}_app$uri"]),
                block(&["if", "($x)"]),
                simple(&["set", "$y", "${z}"]),
                Statement::Close,
            ]
        );
        assert_eq!(statements("location ~ ^/(a|b)$ {}").len(), 2);
    }

    #[test]
    fn quotes_and_backslashes() {
        assert_eq!(
            statements(r#"a "b; {" 'c "d"' "e\"f" g\ h i\;j "" \.php$ "\t\d\\" 'x'{}"#),
            [
                block(&[
                    "a", "b; {", "c \"d\"", "e\"f", r"g\ h", r"i\;j", "", r"\.php$", "\t\\d\\", "x"
                ]),
                Statement::Close,
            ]
        );
        assert_eq!(
            statements("if ($a = \"b\") {"),
            [block(&["if", "($a", "=", "b", ")"])]
        );
        assert_eq!(statements("a b'c\"d;"), [simple(&["a", "b'c\"d"])]);
    }

    #[test]
    fn errors_name_their_line() {
        assert_eq!(error("a;\nb\n"), "line 3: the file ends within a directive");
        assert_eq!(error("a;\n;"), "line 2: a directive has no name");
        assert_eq!(error("a 'b;\n c;"), "line 1: a quoted word has no end");
        assert_eq!(
            error("a 'b'c;"),
            "line 1: a space is due behind a quoted word"
        );
        assert_eq!(error("a { b }"), "line 1: \"}\" where \";\" is due");
    }

    #[test]
    fn lua_bodies_are_skipped_whole() {
        let body = r#"
            local t = { a = "}", b = '\'}' } -- } comment
            --[[ } long
               comment } ]] local s = [==[ } ]] ]==]
            if t[1] then return { {} } end
        } next;"#;
        let mut tokens = Tokens::new(body.as_bytes());
        tokens.skip_lua().unwrap();
        assert_eq!(tokens.next_statement(), Ok(simple(&["next"])));
        assert!(Tokens::new(b"{ }").skip_lua().is_err());
    }

    #[test]
    fn any_bytes_end() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            let mut tokens = Tokens::new(&bytes);
            while !matches!(tokens.next_statement(), Ok(Statement::End) | Err(_)) {}
            let _ = Tokens::new(&bytes).skip_lua();
        });
    }
}
