//! What a server may answer, well behaved or not.

use std::time::Duration;

/// What a path is answered with. The connection is closed behind every answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200, and these bytes as a good server sends them.
    File(Vec<u8>),
    /// This status, such as `403 Forbidden`, and nothing else.
    Status(&'static str),
    /// This status, and where to go instead.
    Redirect(&'static str, String),
    /// Whatever is written to the connection, act by act.
    Wire(Vec<Act>),
}

/// One thing that a server does to a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes these bytes at once.
    Send(Vec<u8>),
    /// Writes these bytes one by one, with such a pause before each.
    Drip(Vec<u8>, Duration),
    /// Writes these bytes over and over, until the client goes away.
    Flood(Vec<u8>),
    /// Writes nothing more until the client goes away.
    Hang,
}

impl Answer {
    /// 200 with exactly these lines of header, and these bytes as its body.
    pub fn with(lines: &[&str], body: &[u8]) -> Answer {
        let mut bytes = head("200 OK", lines);
        bytes.extend_from_slice(body);
        Answer::Wire(vec![Act::Send(bytes)])
    }

    /// 200 and a `Content-Length` that says so many bytes, whatever follows.
    pub fn of_length(says: u64, body: &[u8]) -> Answer {
        Answer::with(&[&format!("Content-Length: {says}")], body)
    }

    /// 200 and the head for so many bytes, then this.
    pub fn then(says: usize, acts: impl IntoIterator<Item = Act>) -> Answer {
        let head = head("200 OK", &[&format!("Content-Length: {says}")]);
        Answer::Wire(std::iter::once(Act::Send(head)).chain(acts).collect())
    }

    /// 200 and a body that never ends.
    pub fn endless() -> Answer {
        let chunk = [b"1000\r\n".to_vec(), vec![b' '; 0x1000], b"\r\n".to_vec()].concat();
        let head = head("200 OK", &["Transfer-Encoding: chunked"]);
        Answer::Wire(vec![Act::Send(head), Act::Flood(chunk)])
    }

    /// What is written to the connection.
    pub(super) fn acts(self) -> Vec<Act> {
        match self {
            Answer::File(bytes) => {
                let mut all = head("200 OK", &[&format!("Content-Length: {}", bytes.len())]);
                all.extend_from_slice(&bytes);
                vec![Act::Send(all)]
            }
            Answer::Status(status) => vec![Act::Send(head(status, &["Content-Length: 0"]))],
            Answer::Redirect(status, to) => {
                let location = format!("Location: {to}");
                vec![Act::Send(head(status, &["Content-Length: 0", &location]))]
            }
            Answer::Wire(acts) => acts,
        }
    }
}

fn head(status: &str, lines: &[&str]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}
