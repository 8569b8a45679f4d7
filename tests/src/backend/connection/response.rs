//! The text of a response.

use crate::behaviour::Framing;

/// A whole response.
pub(super) fn response(body: usize, framing: Framing) -> Vec<u8> {
    let mut response = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n".to_vec();
    match framing {
        Framing::Length => {
            response.extend_from_slice(format!("Content-Length: {body}\r\n\r\n").as_bytes());
            response.resize(response.len() + body, b'a');
        }
        Framing::Chunked => {
            response.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut left = body;
            while left > 0 {
                let chunk = left.min(1000);
                response.extend_from_slice(format!("{chunk:x}\r\n").as_bytes());
                response.resize(response.len() + chunk, b'c');
                response.extend_from_slice(b"\r\n");
                left -= chunk;
            }
            response.extend_from_slice(b"0\r\n\r\n");
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Chunks, chunks, head_length};

    #[test]
    fn a_chunked_response_carries_its_whole_body() {
        let response = response(2500, Framing::Chunked);
        let head = head_length(&response).unwrap().unwrap();
        assert_eq!(
            chunks(&response[head..]).unwrap(),
            Chunks {
                payload: 2500,
                complete: true
            }
        );
    }
}
