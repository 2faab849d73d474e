//! Palisade's benchmarks, load generator and figures.
