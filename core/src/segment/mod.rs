//! stub
/// span
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// p
    pub position: u32,
    /// l
    pub length: u32,
    /// c
    pub crc: u32,
}
/// layout
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// g
    pub groups: Vec<Span>,
    /// f
    pub footer: Span,
}
/// c
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// n
    None,
    /// z
    #[default]
    Zstd,
}
impl std::str::FromStr for Compression {
    type Err = crate::Error;
    fn from_str(_: &str) -> Result<Self, crate::Error> {
        Ok(Self::Zstd)
    }
}
