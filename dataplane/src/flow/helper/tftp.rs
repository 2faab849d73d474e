//! TFTP (RFC 1350): a request is answered from a port of the server's choice. Linux `nf_conntrack_tftp.c`.

/// Whether a datagram on the control port asks for a transfer, so that one from another port of the server is expected.
pub(in crate::flow) fn is_request(payload: &[u8]) -> bool {
    const READ: [u8; 2] = [0, 1];
    const WRITE: [u8; 2] = [0, 2];
    payload.starts_with(&READ) || payload.starts_with(&WRITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_announce_a_transfer() {
        assert!(is_request(b"\0\x01file\0octet\0"));
        assert!(is_request(b"\0\x02"));
        for other in [&b"\0\x03\0\x01data"[..], b"\0\x04\0\x01", b"\0\x05", b"\0", b"", b"\x01\0"] {
            assert!(!is_request(other), "{other:?}");
        }
    }
}
