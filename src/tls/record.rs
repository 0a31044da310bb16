//! TLS records, one direction at a time: a key, a sequence number, plaintext in and out.
//!
//! Only what follows a handshake: the handshake itself is rustls' work, and so are the traffic secrets.
//! RFC 8446 section 5 (TLS 1.3), RFC 5246 section 6.2.3 with RFC 5288 and RFC 7905 (TLS 1.2).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};
use std::ops::Range;

/// Bytes of a record's head.
pub(super) const HEAD: usize = 5;
/// Bytes of plaintext a record may carry.
pub(super) const PLAIN_MAX: usize = 16 * 1024;
/// Bytes a record may have beyond its head: RFC 8446 section 5.2; TLS 1.2 allows more than its ciphers use.
const SEALED_MAX: usize = PLAIN_MAX + 256;
/// Bytes that sealing adds at most: head, explicit nonce or inner type, tag.
pub(super) const OVERHEAD: usize = HEAD + 8 + TAG;
const TAG: usize = 16;
/// AES-GCM of TLS 1.2 writes the changing part of the nonce into each record.
const EXPLICIT: usize = 8;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Alert,
    Handshake,
    Data,
}

impl Content {
    const fn number(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::Data),
            _ => None,
        }
    }
}

/// Why a connection ends; the number goes to the peer. RFC 8446 section 6.2
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the peer sent a TLS record out of place")]
    Unexpected,
    #[error("a TLS record was forged or damaged")]
    Forged,
    #[error("the peer sent a TLS record over the size limit")]
    TooLarge,
    #[error("the peer sent a TLS message that does not parse")]
    Garbled,
    #[error("the TLS keys of this connection are used up")]
    UsedUp,
    #[error("the peer ended the connection with TLS alert {0}")]
    PeerAlert(u8),
}

impl Fault {
    /// The alert that tells the peer; none where it told us.
    pub(super) const fn alert(self) -> Option<u8> {
        match self {
            Self::Unexpected => Some(10),
            Self::Forged => Some(20),
            Self::TooLarge => Some(22),
            Self::Garbled => Some(50),
            Self::UsedUp => Some(80),
            Self::PeerAlert(_) => None,
        }
    }
}

impl From<Fault> for std::io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, fault)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The type inside, nothing explicit.
    Tls13,
    /// Part of the nonce in the record.
    Tls12Gcm,
    /// As TLS 1.2, with the nonce of TLS 1.3.
    Tls12Chacha,
}

/// One direction's key. A sequence number is used once: it moves before anything is done with it.
pub(super) struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    shape: Shape,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("shape", &self.shape)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// From what rustls negotiated. `None`: a cipher we do not know.
    pub(super) fn new(
        version: ProtocolVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Option<Self> {
        let (algorithm, key, iv, tls12) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                (&AES_128_GCM, key, iv, Shape::Tls12Gcm)
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                (&AES_256_GCM, key, iv, Shape::Tls12Gcm)
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&CHACHA20_POLY1305, key, iv, Shape::Tls12Chacha)
            }
            _ => return None,
        };
        let shape = match version {
            ProtocolVersion::TLSv1_3 => Shape::Tls13,
            ProtocolVersion::TLSv1_2 => tls12,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).ok()?;
        Some(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().ok()?,
            sequence,
            shape,
        })
    }

    /// Records done so far.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next sequence number, and the nonce made of it.
    fn step(&mut self) -> Result<(u64, [u8; 12]), Fault> {
        let this = self.sequence;
        self.sequence = this.checked_add(1).ok_or(Fault::UsedUp)?;
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().skip(4).zip(this.to_be_bytes()) {
            *byte ^= number;
        }
        Ok((this, nonce))
    }

    /// Seals at most [`PLAIN_MAX`] bytes into a record at the start of `out`, which has room for
    /// [`OVERHEAD`] more. Returns the record's bytes.
    pub(super) fn seal(
        &mut self,
        content: Content,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        self.seal_number(content.number(), plain, out)
    }

    /// Seals what may be no content of ours.
    pub(super) fn seal_number(
        &mut self,
        number: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let (sequence, nonce) = self.step()?;
        let explicit = match self.shape {
            Shape::Tls12Gcm => EXPLICIT,
            Shape::Tls13 | Shape::Tls12Chacha => 0,
        };
        let inner = [number];
        let (outer, inner): (u8, &[u8]) = match self.shape {
            Shape::Tls13 => (Content::Data.number(), &inner),
            Shape::Tls12Gcm | Shape::Tls12Chacha => (number, &[]),
        };
        let sealed = explicit + plain.len() + inner.len() + TAG;
        let head = head(outer, sealed);
        let total = HEAD + sealed;
        let (to_head, rest) = out
            .get_mut(..total)
            .and_then(|record| record.split_at_mut_checked(HEAD))
            .ok_or(Fault::TooLarge)?;
        let (to_explicit, rest) = rest.split_at_mut_checked(explicit).ok_or(Fault::TooLarge)?;
        let (to_text, to_end) = rest
            .split_at_mut_checked(plain.len())
            .ok_or(Fault::TooLarge)?;
        to_head.copy_from_slice(&head);
        to_explicit.copy_from_slice(nonce.get(4..4 + explicit).unwrap_or_default());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let outcome = match self.shape {
            Shape::Tls13 => self.key.seal_out_of_place_scatter(
                nonce,
                Aad::from(head),
                plain,
                to_text,
                inner,
                to_end,
            ),
            Shape::Tls12Gcm | Shape::Tls12Chacha => self.key.seal_out_of_place_scatter(
                nonce,
                Aad::from(aad12(sequence, outer, plain.len())),
                plain,
                to_text,
                inner,
                to_end,
            ),
        };
        outcome.map_err(|_unspecified| Fault::UsedUp)?;
        Ok(total)
    }

    /// Opens a whole record, head included, in place. Returns what it carries and where.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(Content, Range<usize>), Fault> {
        let (sequence, mut nonce) = self.step()?;
        let (head, sealed) = record
            .split_first_chunk_mut::<HEAD>()
            .ok_or(Fault::Garbled)?;
        let outer = head[0];
        match self.shape {
            Shape::Tls13 => {
                if outer != Content::Data.number() {
                    return Err(Fault::Unexpected);
                }
                let plain = self
                    .key
                    .open_in_place(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::from(*head),
                        sealed,
                    )
                    .map_err(|_unspecified| Fault::Forged)?;
                // Behind the plaintext stands its type, behind that any number of zeros.
                let end = plain
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .ok_or(Fault::Unexpected)?;
                if plain.len() > PLAIN_MAX + 1 {
                    return Err(Fault::TooLarge);
                }
                let inner = plain.get(end).copied().unwrap_or(0);
                let content = Content::of(inner).ok_or(Fault::Unexpected)?;
                Ok((content, HEAD..HEAD + end))
            }
            Shape::Tls12Gcm | Shape::Tls12Chacha => {
                let content = Content::of(outer).ok_or(Fault::Unexpected)?;
                let explicit = match self.shape {
                    Shape::Tls12Gcm => EXPLICIT,
                    _ => 0,
                };
                let length = sealed
                    .len()
                    .checked_sub(explicit + TAG)
                    .ok_or(Fault::Forged)?;
                if length > PLAIN_MAX {
                    return Err(Fault::TooLarge);
                }
                let (theirs, sealed) =
                    sealed.split_at_mut_checked(explicit).ok_or(Fault::Forged)?;
                if let Some(changing) = nonce.get_mut(4..4 + explicit) {
                    changing.copy_from_slice(theirs);
                }
                self.key
                    .open_in_place(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::from(aad12(sequence, outer, length)),
                        sealed,
                    )
                    .map_err(|_unspecified| Fault::Forged)?;
                let begin = HEAD + explicit;
                Ok((content, begin..begin + length))
            }
        }
    }
}

fn head(outer: u8, sealed: usize) -> [u8; HEAD] {
    let [.., high, low] = sealed.to_be_bytes();
    // Both versions write that of TLS 1.2 here. RFC 8446 section 5.1
    [outer, 3, 3, high, low]
}

/// What TLS 1.2 authenticates beside the plaintext. RFC 5246 section 6.2.3.3
fn aad12(sequence: u64, outer: u8, length: usize) -> [u8; 13] {
    let [a, b, c, d, e, f, g, h] = sequence.to_be_bytes();
    let [.., high, low] = length.to_be_bytes();
    [a, b, c, d, e, f, g, h, outer, 3, 3, high, low]
}

/// Bytes of the record that begins here, its head included. `None`: its head is not all here.
pub(super) fn length(wire: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[outer, major, _, high, low]) = wire.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let sealed = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&outer) || major != 3 {
        return Err(Fault::Garbled);
    }
    if sealed > SEALED_MAX {
        return Err(Fault::TooLarge);
    }
    Ok(Some(HEAD + sealed))
}
