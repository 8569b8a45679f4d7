//! nginx's notation of times.

/// Milliseconds of a time as nginx writes it: `5s`, `1m 30s`, `500ms`, `1h`, `2`
/// (seconds). `None` where nginx refuses it.
///
/// After `ngx_parse_time` (`src/core/ngx_parse.c`) for settings in milliseconds:
/// units come from long to short, each once; years and months are refused.
pub fn parse_time_ms(text: &str) -> Option<u64> {
    /// Units by length, in milliseconds; ranks let none come twice.
    const UNITS: [(&str, u64, u8); 6] = [
        ("w", 7 * 24 * 3_600_000, 1),
        ("d", 24 * 3_600_000, 2),
        ("h", 3_600_000, 3),
        ("ms", 1, 6),
        ("m", 60_000, 4),
        ("s", 1000, 5),
    ];
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last_rank = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = UNITS.iter().find(|(unit, ..)| rest.starts_with(unit));
        let (scale, rank) = match unit {
            Some(&(unit, scale, rank)) => {
                rest = &rest[unit.len()..];
                (scale, rank)
            }
            None if rest.is_empty() || rest.starts_with(' ') => (1000, 7),
            None => return None,
        };
        if rank <= last_rank {
            return None;
        }
        last_rank = rank;
        total = total.checked_add(number.checked_mul(scale)?)?;
        rest = rest.trim_start_matches(' ');
    }
    (last_rank > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::parse_time_ms;

    #[test]
    fn times_are_read_as_nginx_reads_them() {
        for (text, ms) in [
            ("5s", 5000),
            ("60", 60_000),
            ("0", 0),
            ("500ms", 500),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1d2h", 93_600_000),
            ("1w", 604_800_000),
            ("1s 500ms", 1500),
            ("1m 5", 65_000),
        ] {
            assert_eq!(parse_time_ms(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "s",
            "5x",
            "30s 1m",
            "1s1s",
            "1y",
            "1M",
            "-1s",
            "1.5s",
            "99999999999999999999",
            "1 1",
        ] {
            assert_eq!(parse_time_ms(text), None, "{text}");
        }
    }
}
