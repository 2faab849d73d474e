//! Palisade's end-to-end tests: real AF_XDP in namespaces, clean-up, demo.
