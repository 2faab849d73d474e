//! AF_XDP.

/// A frame.
pub struct Frame;
/// A pool.
pub struct FramePool;
