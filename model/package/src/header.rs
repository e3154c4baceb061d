//! tar headers: strictly read, and written in one way.

/// Bytes of a header and of the units that files are padded to.
pub(crate) const BLOCK: usize = 512;
/// The first size that eleven octal digits cannot hold.
const OCTAL_END: u64 = 1 << 33;

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;

const USTAR: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \x00";

/// A header's fields, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) size: u64,
}

/// Reads a header. Errors: a sentence about what is wrong.
pub(crate) fn read(bytes: &[u8; BLOCK]) -> Result<Header, String> {
    if octal(&bytes[CHECKSUM]) != Some(u64::from(checksum(bytes))) {
        return Err("the checksum does not match".into());
    }
    let prefix = match &bytes[MAGIC] {
        USTAR => text(&bytes[PREFIX]),
        // GNU tar keeps other things in the prefix's place, all of which are zero here.
        GNU if bytes[PREFIX].iter().all(|byte| *byte == 0) => &[],
        GNU => return Err("GNU extensions are not supported".into()),
        _ => return Err("not a POSIX tar header".into()),
    };
    let name = text(&bytes[NAME]);
    let path = if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    };
    let mode = octal(&bytes[MODE])
        .and_then(|mode| u32::try_from(mode).ok())
        .ok_or("the mode is not a number")?;
    let size = size(&bytes[SIZE]).ok_or("the size is not a number in its one form")?;
    Ok(Header {
        kind: bytes[TYPE],
        path,
        link: text(&bytes[LINK]).to_vec(),
        mode,
        size,
    })
}

/// Makes a header. Errors: nothing, when the path or link is too long for one and needs PAX records.
pub(crate) fn write(kind: u8, path: &str, link: &str, mode: u32, size: u64) -> Option<[u8; BLOCK]> {
    let mut bytes = [0; BLOCK];
    if path.len() > NAME.len() || link.len() > LINK.len() {
        return None;
    }
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    bytes[LINK.start..LINK.start + link.len()].copy_from_slice(link.as_bytes());
    put_octal(&mut bytes[MODE], u64::from(mode));
    // Owner, group and time of modification are always zero: they are no part of a package.
    put_octal(&mut bytes[108..116], 0);
    put_octal(&mut bytes[116..124], 0);
    put_octal(&mut bytes[136..148], 0);
    if size < OCTAL_END {
        put_octal(&mut bytes[SIZE], size);
    } else {
        bytes[SIZE.start] = 0x80;
        bytes[SIZE.end - 8..SIZE.end].copy_from_slice(&size.to_be_bytes());
    }
    bytes[TYPE] = kind;
    bytes[MAGIC].copy_from_slice(USTAR);
    let sum = checksum(&bytes);
    put_octal(&mut bytes[CHECKSUM.start..CHECKSUM.end - 1], u64::from(sum));
    bytes[CHECKSUM.end - 1] = b' ';
    Some(bytes)
}

fn put_octal(field: &mut [u8], value: u64) {
    let last = field.len() - 1;
    for (place, byte) in field[..last].iter_mut().rev().enumerate() {
        // The digit is below eight, so the cast keeps it.
        *byte = b'0' + ((value >> (3 * place)) & 7) as u8;
    }
    field[last] = 0;
}

/// The sum of all bytes, the checksum's own place counted as spaces.
fn checksum(bytes: &[u8; BLOCK]) -> u32 {
    let own: u32 = bytes[CHECKSUM].iter().map(|byte| u32::from(*byte)).sum();
    let all: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    all - own + u32::from(b' ') * 8
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits after spaces, then only NULs and spaces.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|byte| *byte != b' ')?;
    let digits = field[start..]
        .iter()
        .take_while(|byte| (b'0'..=b'7').contains(byte))
        .count();
    let (number, rest) = field[start..].split_at(digits);
    if digits == 0 || digits > 21 || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    Some(
        number
            .iter()
            .fold(0, |value, byte| value << 3 | u64::from(byte - b'0')),
    )
}

/// Octal, or base-256 for what octal cannot hold; never two forms for one size.
fn size(field: &[u8]) -> Option<u64> {
    let [0x80, high @ .., a, b, c, d, e, f, g, h] = field else {
        return octal(field);
    };
    let value = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
    // The upper half of the range would overflow when it is rounded up to blocks.
    (high.iter().all(|byte| *byte == 0) && (OCTAL_END..1 << 62).contains(&value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_one_form() {
        let sized = |size: u64| write(b'0', "a", "", 0o644, size).unwrap();
        for size in [0, 1, OCTAL_END - 1, OCTAL_END, 1 << 40] {
            assert_eq!(read(&sized(size)).unwrap().size, size);
        }
        for twisted in [
            &b"\x80\0\0\0\0\0\0\0\0\0\0\x01"[..],
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(super::size(twisted), None);
        }
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"   644 \0"), Some(0o644));
        for bad in [
            &b"\0\0\0\0"[..],
            b"-1\0",
            b"12x\0",
            b"1 2\0",
            b"    ",
            b"8\0",
        ] {
            assert_eq!(octal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_independent_reader_agrees() {
        let bytes = write(b'2', "dir/name", "../target", 0o777, 0).unwrap();
        let header = tar::Header::from_byte_slice(&bytes);
        assert_eq!(header.path_bytes().as_ref(), b"dir/name");
        assert_eq!(header.link_name_bytes().unwrap().as_ref(), b"../target");
        assert_eq!((header.mode().unwrap(), header.uid().unwrap()), (0o777, 0));
        assert_eq!(header.cksum().unwrap(), checksum(&bytes));
        assert!(write(b'0', &"x".repeat(101), "", 0, 0).is_none());
    }

    proptest! {
        #[test]
        fn damage_is_noticed_and_never_panics(at in 0..BLOCK, byte: u8) {
            let good = write(b'0', "dir/name", "", 0o644, 77).unwrap();
            let mut bytes = good;
            bytes[at] = byte;
            if bytes != good && !CHECKSUM.contains(&at) {
                prop_assert!(read(&bytes).is_err());
            }
        }
    }
}
