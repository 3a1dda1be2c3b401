//! How a session has the configuration read again, which is not its worker's to do.

use tokio::sync::{mpsc, oneshot};

/// Reloads that wait for their turn: they are done one after another, and nobody needs many.
const WAITING: usize = 16;

/// A wish to have the configuration read again, and who is told what came of it: what has changed and what needs a restart,
/// by lines; or why nothing has been taken.
pub type ReloadRequest = oneshot::Sender<Result<Vec<String>, String>>;

/// Where such wishes go. By default to nobody.
#[derive(Clone, Debug, Default)]
pub struct Reloads(Option<mpsc::Sender<ReloadRequest>>);

impl Reloads {
    /// And where they arrive.
    pub fn channel() -> (Reloads, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Reloads(Some(sender)), receiver)
    }

    /// Has the configuration read again.
    ///
    /// # Errors
    /// Why nothing has been taken.
    pub async fn ask(&self) -> Result<Vec<String>, String> {
        let (told, report) = oneshot::channel();
        let ends = || "the proxy is ending".to_owned();
        let Some(reloads) = &self.0 else { return Err(ends()) };
        reloads.send(told).await.map_err(|_| ends())?;
        report.await.map_err(|_| ends())?
    }
}
