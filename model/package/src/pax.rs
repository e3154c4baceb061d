//! PAX extended headers: only what long names need.

/// Longest extended header read. Names are short, and foreign tools add a few short records.
pub(crate) const MAX_BYTES: u64 = 16 << 10;

/// The records that matter.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
}

/// Reads the records of one entry. Errors: a sentence about what is wrong. Records that would change
/// anything but the names are refused: two readers that disagree about a size see two archives.
pub(crate) fn read(mut bytes: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    while !bytes.is_empty() {
        let (key, value, rest) = record(bytes).ok_or("an extended header is malformed")?;
        bytes = rest;
        let slot = match key {
            b"path" => &mut records.path,
            b"linkpath" => &mut records.link,
            b"mtime" | b"atime" | b"ctime" | b"uid" | b"gid" | b"uname" | b"gname" | b"comment" => {
                continue;
            }
            other => {
                let shown = String::from_utf8_lossy(&other[..other.len().min(60)]);
                return Err(format!("the extended header {shown:?} is not supported"));
            }
        };
        if value.contains(&0) || slot.replace(value.to_vec()).is_some() {
            return Err("an extended header is there twice or holds a NUL".into());
        }
    }
    Ok(records)
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let digits = &bytes[..space];
    if digits.is_empty() || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

/// Appends a record.
pub(crate) fn write(out: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_a_name_is_refused() {
        let bad: [&[u8]; 9] = [
            b"11 size=99\n",
            b"22 GNU.sparse.major=1\n",
            b"8 path=a",
            b"9 path=a\n9 path=b\n",
            b"9 path=\0\n",
            b"99 path=a\n",
            b"09 path=a\n",
            b"path=a\n",
            b"3 \n",
        ];
        for bad in bad {
            assert!(read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(read(b"20 mtime=1234567.89\n").unwrap(), Records::default());
    }

    proptest! {
        #[test]
        fn records_round_trip(path in "[^\\x00]{0,300}", link in "[^\\x00]{0,1100}") {
            let mut bytes = Vec::new();
            write(&mut bytes, "path", &path);
            write(&mut bytes, "linkpath", &link);
            let records = read(&bytes).unwrap();
            prop_assert_eq!(records.path.unwrap(), path.into_bytes());
            prop_assert_eq!(records.link.unwrap(), link.into_bytes());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
