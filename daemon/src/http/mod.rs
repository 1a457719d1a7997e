//! HTTP for machines: `/metrics`, `/live`, `/ready`, `/status`. Read only; nobody is asked who they are, so it listens on the loopback
//! address unless told otherwise.

mod pages;
mod readiness;
mod server;

pub use pages::Pages;
pub use readiness::{Readiness, Wait};
pub use server::Server;
