//! Keys and values as text: what is not printable is escaped, and escapes are read back.
//!
//! `\xNN`, `\n`, `\r`, `\t`, `\0`, `\'`, `\"` and `\\` stand for bytes, as Rust writes them; everything else stands for itself.

use crate::failure::Failure;

/// The bytes of an argument.
pub fn parse(text: &str) -> Result<Vec<u8>, Failure> {
    let bad = || Failure::usage(format!("{text:?} ends in an escape that is not one; write \\\\ for a backslash"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().ok_or_else(bad)? {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'0' => bytes.push(0),
            byte @ (b'\\' | b'\'' | b'"') => bytes.push(byte),
            b'x' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
                let byte = digit()? << 4 | digit()?;
                bytes.push(u8::try_from(byte).map_err(|_| bad())?);
            }
            _ => return Err(bad()),
        }
    }
    Ok(bytes)
}

/// The bytes as one line of text.
pub fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::{parse, show};

    #[test]
    fn every_byte_survives_a_round_trip() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(parse(&show(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn a_half_escape_is_refused() {
        for text in ["\\", "\\x", "\\x1", "\\xgg", "\\q"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
