//! Netlink attributes that netlink-packet-route does not know: building and reading.

use netlink_packet_core::NlasIterator;

/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`, which are no part of the kind.
const FLAGS: u16 = NESTED | 1 << 14;

/// A growing list of attributes.
#[derive(Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (4 + value.len()) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Appends a text, terminated by a zero byte.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Appends attributes within an attribute.
    #[must_use]
    pub fn with_nested(self, kind: u16, inner: Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The attributes in a buffer: kind and value. Stops at the first that is malformed.
pub fn each(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|nla| (nla.kind(), usize::from(nla.length()), nla.into_inner()))
        // The buffer of an attribute goes on to the end of the list.
        .map(|(kind, len, rest)| (kind, rest.get(4..len).unwrap_or_default()))
}

/// The attributes in a buffer that must consist of nothing else; `None` when it does not.
#[must_use]
pub fn all(bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (len, kind) = (u16_at(rest, 0)?, u16_at(rest, 2)?);
        let len = usize::from(len);
        found.push((kind & !FLAGS, rest.get(4..len)?));
        // The last one may lack what fills it up.
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

/// The first attribute of a kind.
#[must_use]
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    each(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|b| u16::from_ne_bytes(*b))
}

/// A 32-bit number at an offset.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = Attributes::default()
            .with_text(1, "fw")
            .with_nested(2, Attributes::default().with_u32(5, 7).with(6, &[1, 2, 3]))
            .into_bytes();
        assert_eq!(find(&bytes, 1), Some(&b"fw\0"[..]));
        let inner = find(&bytes, 2).unwrap();
        assert_eq!(u32_at(find(inner, 5).unwrap(), 0), Some(7));
        assert_eq!(find(inner, 6), Some(&[1, 2, 3][..]));
        assert_eq!(find(inner, 9), None);
    }

    #[test]
    fn all_bytes_must_be_attributes() {
        let bytes = Attributes::default().with(1, &[7]).with_u32(2, 3);
        let bytes = bytes.into_bytes();
        assert_eq!(
            all(&bytes),
            Some(vec![(1, &[7][..]), (2, &3u32.to_ne_bytes()[..])])
        );
        assert_eq!(all(&[]), Some(vec![]));
        for bad in [
            &bytes[..bytes.len() - 1],
            &bytes[..3],
            &[3, 0, 1, 0],
            &[0; 4],
        ] {
            assert_eq!(all(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        assert_eq!(each(&[255, 0, 1, 0, 9]).count(), 0);
        assert_eq!(each(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(u32_at(&[1, 2, 3], 0), None);
        assert_eq!(u32_at(&[1, 2, 3], 9), None);
    }
}
