//! The distribution API against one whole replica in this process.
//!
//! One test program, so that it is linked once; one module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod basics;
mod docker;
mod immutable;
mod ranges;
mod specification;
mod support;
