//! Weighs what was said over MAPI over HTTP, kind by kind.

use super::kinds::{Kinds, Said};
use crate::lab::tap::Talk;
use crate::mapi::RequestType;
use crate::mapi::bodies::{Answer, Body as _, ExecuteRequest, ExecuteSuccess};
use anyhow::{Context as _, Result, bail, ensure};

/// Weighs whole requests and their whole answers, and the beginnings of held ones.
///
/// # Errors
/// Something that is neither, or was cut off.
pub(super) fn weigh(talks: &[Talk]) -> Result<Said> {
    let mut said = Said::default();
    for talk in talks {
        let mut left = talk.sent.as_slice();
        while !left.is_empty() {
            left = request(left, &mut said).context("a request")?;
        }
        let mut left = talk.received.as_slice();
        while !left.is_empty() {
            left = answer(left, &mut said.received).context("an answer")?;
        }
    }
    Ok(said)
}

/// A head: its kinds, the type of the request it is about, and how its body is framed.
struct Head {
    kinds: Kinds,
    kind: RequestType,
    length: Option<usize>,
    is_chunked: bool,
    /// The body is of the protocol, not a page for people.
    is_mapi: bool,
}

/// Reads a head; returns what follows it.
fn head(bytes: &[u8]) -> Result<(Head, &[u8])> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").context("a head without end")? + 4;
    let (lines, rest) = bytes.split_at(end);
    let mut head = Head {
        kinds: Kinds::default(),
        kind: RequestType::Missing,
        length: None,
        is_chunked: false,
        is_mapi: true,
    };
    for line in std::str::from_utf8(lines)?.split_inclusive("\r\n") {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        let bytes = line.len() as u64;
        match name.to_ascii_lowercase().as_str() {
            "authorization" => head.kinds.authorization += bytes,
            "cookie" | "set-cookie" => head.kinds.cookies += bytes,
            _ => head.kinds.lines += bytes,
        }
        match name.to_ascii_lowercase().as_str() {
            "x-requesttype" => head.kind = RequestType::read(value.as_bytes()),
            "content-type" => head.is_mapi = value == "application/mapi-http",
            "content-length" => head.length = Some(value.parse()?),
            "transfer-encoding" => head.is_chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    Ok((head, rest))
}

fn request<'a>(bytes: &'a [u8], said: &mut Said) -> Result<&'a [u8]> {
    let (head, rest) = head(bytes)?;
    let (body, rest) = rest
        .split_at_checked(head.length.unwrap_or(0))
        .context("a body that is cut off")?;
    let payload = match head.kind {
        RequestType::Execute => ExecuteRequest::decode(body)?.rop_buffer.len(),
        _ => 0,
    };
    let mut kinds = head.kinds;
    kinds.payload += payload as u64;
    kinds.fields += (body.len() - payload) as u64;
    said.sent += kinds;
    said.requests += 1;
    said.sizes.push((kinds.plain(), kinds.authorization));
    Ok(rest)
}

fn answer<'a>(bytes: &'a [u8], received: &mut Kinds) -> Result<&'a [u8]> {
    let (head, rest) = head(bytes)?;
    let mut kinds = head.kinds;
    let (stream, rest) = match head.is_chunked {
        true => chunks(rest, head.kind.is_held(), &mut kinds)?,
        false => {
            let (body, rest) = rest
                .split_at_checked(head.length.unwrap_or(0))
                .context("a body that is cut off")?;
            (body.to_vec(), rest)
        }
    };
    if !head.is_mapi {
        // A code other than 0, with words for people.
        kinds.fields += stream.len() as u64;
        *received += kinds;
        return Ok(rest);
    }
    let tags = tags(&stream, head.kind.is_held())?;
    kinds.framing += tags as u64;
    let body = stream.get(tags..).unwrap_or_default();
    let payload = match head.kind {
        RequestType::Execute => match Answer::<ExecuteSuccess>::decode(body)? {
            Answer::Success(success) => success.rop_buffer.len(),
            Answer::Failure { status_code, .. } => bail!("status code {status_code}"),
        },
        _ => 0,
    };
    kinds.payload += payload as u64;
    kinds.fields += (body.len() - payload) as u64;
    *received += kinds;
    Ok(rest)
}

/// Joins chunks; what is not payload of one is framing. One that is held may end after any chunk.
fn chunks<'a>(bytes: &'a [u8], is_held: bool, kinds: &mut Kinds) -> Result<(Vec<u8>, &'a [u8])> {
    let mut stream = Vec::new();
    let mut rest = bytes;
    loop {
        if is_held && rest.is_empty() {
            return Ok((stream, rest));
        }
        let end = memchr::memmem::find(rest, b"\r\n").context("a chunk without size")?;
        let (line, after) = rest.split_at(end + 2);
        let size = usize::from_str_radix(std::str::from_utf8(line)?.trim(), 16)?;
        let (chunk, after) = after
            .split_at_checked(size)
            .context("a chunk that is cut off")?;
        stream.extend_from_slice(chunk);
        let after = after.strip_prefix(b"\r\n").context("a chunk's end")?;
        kinds.framing += line.len() as u64 + 2;
        rest = after;
        if size == 0 {
            return Ok((stream, rest));
        }
    }
}

/// Bytes of the meta tags and of the headers behind DONE; all of one that is still held. `[MS-OXCMAPIHTTP] 2.2.7`
fn tags(stream: &[u8], is_held: bool) -> Result<usize> {
    let done = match memchr::memmem::find(stream, b"DONE\r\n") {
        Some(done) => done,
        None if is_held || stream.is_empty() => return Ok(stream.len()),
        None => bail!("no DONE"),
    };
    let before = stream.get(..done).unwrap_or_default();
    let is_tags = String::from_utf8_lossy(before)
        .split_terminator("\r\n")
        .all(|tag| matches!(tag, "PROCESSING" | "PENDING"));
    ensure!(is_tags, "something before DONE");
    let behind = stream.get(done..).unwrap_or_default();
    let end = memchr::memmem::find(behind, b"\r\n\r\n").context("no end of headers")?;
    Ok(done + end + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapi::bodies::rops::{write_chain, write_payload};

    /// A ROP buffer of 8 + 2 + 22 = 32 bytes.
    fn rops() -> Vec<u8> {
        write_chain(&[write_payload(&[7; 22], &[])])
    }

    fn execute() -> Vec<u8> {
        let body = ExecuteRequest::of(rops()).encode();
        // Flags 4, size 4, MaxRopOut 4, size 4 beside the ROP buffer.
        assert_eq!(body.len(), 32 + 16);
        let mut bytes =
            b"POST / HTTP/1.1\r\nX-RequestType: Execute\r\nAuthorization: Basic eDp5\r\n\
            Cookie: a=1\r\nContent-Length: 48\r\n\r\n"
                .to_vec();
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_request_is_weighed_as_counted_by_hand() {
        let talk = Talk {
            sent: execute(),
            received: Vec::new(),
        };

        let said = weigh(&[talk]).unwrap();

        let kinds = Kinds {
            // "POST / HTTP/1.1" 17, "X-RequestType: Execute" 24, "Content-Length: 48" 20, the empty line 2.
            lines: 17 + 24 + 20 + 2,
            // "Authorization: Basic eDp5" and its end.
            authorization: 25 + 2,
            cookies: 11 + 2,
            framing: 0,
            fields: 16,
            payload: 32,
            tls: 0,
        };
        assert_eq!(said.sent, kinds);
        assert_eq!(said.sizes, [(kinds.plain(), 27)]);
        assert_eq!(said.sent.plain(), execute().len() as u64);
    }

    #[test]
    fn an_answer_in_chunks_is_weighed_as_counted_by_hand() {
        let body = Answer::Success(ExecuteSuccess {
            error_code: 0,
            flags: 0,
            rop_buffer: rops(),
            auxiliary: Vec::new(),
        })
        .encode();
        // StatusCode, ErrorCode, Flags, two sizes: 20 beside the ROP buffer.
        assert_eq!(body.len(), 32 + 20);
        let tags = "DONE\r\nX-ElapsedTime: 0\r\n\r\n";
        let mut received = b"HTTP/1.1 200 OK\r\nX-RequestType: Execute\r\nSet-Cookie: a=2\r\n\
            Transfer-Encoding: chunked\r\n\r\nC\r\nPROCESSING\r\n\r\n"
            .to_vec();
        received.extend(format!("{:X}\r\n", tags.len() + body.len()).bytes());
        received.extend(tags.bytes());
        received.extend(&body);
        received.extend(b"\r\n0\r\n\r\n");
        let all = received.len() as u64;
        let talk = Talk {
            sent: Vec::new(),
            received,
        };

        let said = weigh(&[talk]).unwrap();

        assert_eq!(
            said.received,
            Kinds {
                lines: 17 + 24 + 28 + 2,
                authorization: 0,
                cookies: 17,
                // "C" and "4E" and "0" with their line ends: 3 + 4 + 3, two ends of chunks and the last: 2 + 2 + 2;
                // PROCESSING 12, DONE 6, X-ElapsedTime 18, the empty line 2.
                framing: 10 + 6 + 12 + 6 + 18 + 2,
                fields: 20,
                payload: 32,
                tls: 0,
            }
        );
        assert_eq!(said.received.plain(), all);
    }

    #[test]
    fn an_answer_that_is_held_is_weighed_as_far_as_it_has_come() {
        let begun = b"HTTP/1.1 200 OK\r\nX-RequestType: NotificationWait\r\n\
            Transfer-Encoding: chunked\r\n\r\nC\r\nPROCESSING\r\n\r\n";
        let talk = Talk {
            sent: Vec::new(),
            received: begun.to_vec(),
        };

        let said = weigh(&[talk]).unwrap();

        assert_eq!(said.received.framing, 3 + 12 + 2);
        assert_eq!(said.received.plain(), begun.len() as u64);
    }

    #[test]
    fn a_page_for_people_is_no_payload() {
        let page = b"HTTP/1.1 200 OK\r\nX-RequestType: Execute\r\nContent-Type: text/html\r\n\
            Content-Length: 4\r\n\r\ngone";
        let talk = Talk {
            sent: Vec::new(),
            received: page.to_vec(),
        };

        let said = weigh(&[talk]).unwrap();

        assert_eq!((said.received.fields, said.received.payload), (4, 0));
        assert_eq!(said.received.plain(), page.len() as u64);
    }

    #[test]
    fn what_was_cut_off_is_not_weighed() {
        let whole = execute();
        for length in [10, whole.len() - 1] {
            let talk = Talk {
                sent: whole[..length].to_vec(),
                received: Vec::new(),
            };
            assert!(weigh(&[talk]).is_err(), "{length}");
        }
    }
}
