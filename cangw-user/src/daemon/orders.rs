//! What clients want of the main loop, which has the topologies.

use tokio::sync::{mpsc, oneshot};

use crate::api::methods::{Done, Down, Up};
use crate::api::refused;
use crate::api::service::{TunnelAdd, TunnelRemove};
use crate::error::Result;

/// What is to be done.
pub(super) enum What {
    /// Read the files again.
    Reload,
    /// Make a topology, and keep it from then on.
    Up(Up),
    /// Take a topology down, and keep it no more.
    Down(Down),
    /// Make a tunnel, and keep it from then on.
    AddTunnel(Box<TunnelAdd>),
    /// End a tunnel, and keep it no more.
    RemoveTunnel(TunnelRemove),
}

/// What is to be done, with the place for the answer.
pub(super) struct Order {
    pub what: What,
    pub answer: oneshot::Sender<Result<Done>>,
}

/// Lets the main loop do something.
///
/// # Errors
/// What it says.
pub(super) async fn order(orders: &mpsc::Sender<Order>, what: What) -> Result<Done> {
    let (answer, done) = oneshot::channel();
    let gone = || refused("cangwd is about to end");
    let order = Order { what, answer };
    orders.send(order).await.map_err(|_| gone())?;
    done.await.map_err(|_| gone())?
}
