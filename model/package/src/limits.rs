//! How much of an archive is read.

/// Bounds against hostile or broken archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and links together.
    pub entries: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of all names and link targets together: they are held in memory.
    pub name_bytes: u64,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Unpacked bytes for each compressed one…
    pub ratio: u64,
    /// …once this many bytes have been unpacked: small files may compress as well as they like.
    pub ratio_from_bytes: u64,
    /// Base-2 logarithm of the largest zstd window in bytes; it is what decoding costs in memory.
    pub window_log: u32,
}

impl Default for Limits {
    /// 100 000 entries, 10 000 links, 16 MiB of names, 256 GiB, 250:1 from 64 MiB on, the 128 MiB window that zstd's
    /// own tools take without being asked.
    fn default() -> Self {
        Self {
            entries: 100_000,
            links: 10_000,
            name_bytes: 16 << 20,
            total_bytes: 256 << 30,
            ratio: 250,
            ratio_from_bytes: 64 << 20,
            window_log: 27,
        }
    }
}
