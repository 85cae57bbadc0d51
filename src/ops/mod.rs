//! Operations: health, metrics, status, the page that shows it, and the drain.

pub mod descriptors;
pub mod disk;
pub mod drain;
pub mod health;
pub mod metrics;
mod page;
pub mod router;
pub mod seat;
pub mod status;

pub use health::Health;
pub use metrics::Metrics;
