//! Upgrading without a gap: a new process takes the place of a running one, and its listening sockets.
//!
//! The running process listens at a unix socket. Who connects there gets the listening sockets (`SCM_RIGHTS`), makes itself
//! ready, and says so; only then the running one accepts nobody more, and drains. The sockets are the same throughout, so that
//! clients who connect meanwhile wait in their backlog at most. A successor that does not become ready changes nothing.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use tokio::io::{AsyncReadExt, Interest};

use super::inherited::Inherited;
use crate::{protocol::endpoint::ListenAddress, upstream::transport::Listener};

/// The most sockets that are handed over: as many as one message carries on Linux.
const MOST: usize = 253;
/// What the running process says with the sockets: another version of this protocol would say another.
const GREETING: &[u8] = b"slotway takeover 1\n";
/// What the successor says when it can serve.
const READY: &[u8] = b"ready\n";
/// How long the one waits for the other's next word, where nothing else has to be done first.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a successor may take to become ready.
const SUCCESSION: Duration = Duration::from_secs(60);

/// The running process, to whoever takes its place.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// Asks the process that runs for its sockets; `None` where none does.
///
/// # Errors
/// A process listens there and gives no sockets: it runs as another user, or is another program.
pub fn ask(path: &Path) -> io::Result<Option<(Inherited, Predecessor)>> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = [0; GREETING.len()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&stream, &mut [IoSliceMut::new(&mut said)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    if said.get(..received.bytes) != Some(GREETING) {
        return Err(io::Error::other("what answers there is no Slotway that hands over its sockets"));
    }
    let sockets = rights.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<OwnedFd>>(),
        _ => Vec::new(),
    });
    Ok(Some((Inherited::from_predecessor(sockets.collect()), Predecessor(stream))))
}

impl Predecessor {
    /// Tells the running process to accept no more clients, and waits until it has let go of its ports.
    ///
    /// # Errors
    /// The running process is gone, or does not answer.
    pub fn step_down(mut self) -> io::Result<()> {
        self.0.write_all(READY)?;
        // It closes the connection once it has let go of everything.
        self.0.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// The sockets that there are when a successor asks.
pub type Sockets<'a> = dyn Fn() -> io::Result<Vec<OwnedFd>> + 'a;

/// Where a successor asks.
#[derive(Debug)]
pub struct Post(Listener);

/// A successor that is ready; it goes on when this is dropped.
#[derive(Debug)]
pub struct Successor(#[expect(dead_code, reason = "it is kept open")] tokio::net::UnixStream);

impl Post {
    /// A post at this path; only processes of the same user may connect.
    ///
    /// # Errors
    /// What the system says: somebody else listens there, say.
    pub fn at(path: &Path) -> io::Result<Post> {
        let address = ListenAddress::Unix { path: path.to_string_lossy().into(), mode: Some(0o600) };
        Listener::bind(&address, false, None).map(Post)
    }

    /// Waits until a successor has these sockets and is ready. One that does not become ready is logged, and changes
    /// nothing.
    pub async fn hand_over(&self, sockets: &Sockets<'_>) -> Successor {
        loop {
            match self.try_hand_over(sockets).await {
                Ok(successor) => return successor,
                Err(error) => {
                    tracing::warn!(%error, "a successor came and did not become ready: this process serves on");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn try_hand_over(&self, sockets: &Sockets<'_>) -> io::Result<Successor> {
        let Listener::Unix(listener, _) = &self.0 else { return std::future::pending().await };
        let (mut stream, _) = listener.accept().await?;
        tracing::info!("a successor asks for the listening sockets");
        // Kept no longer than that: a reload may close one of them meanwhile.
        send(&stream, sockets()?).await?;
        let mut said = [0; READY.len()];
        tokio::time::timeout(SUCCESSION, stream.read_exact(&mut said)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if said == *READY { Ok(Successor(stream)) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// Greets a successor, and passes it these sockets.
async fn send(stream: &tokio::net::UnixStream, sockets: Vec<OwnedFd>) -> io::Result<()> {
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let send = || {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if sockets.len() > MOST || !rights.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("there are too many listeners to hand over"));
        }
        Ok(sendmsg(stream.as_fd(), &[IoSlice::new(GREETING)], &mut rights, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, TcpListener},
        os::unix::net::UnixListener,
        path::PathBuf,
        pin::pin,
    };

    use tempfile::TempDir;
    use tokio::task::spawn_blocking;

    use super::*;

    /// A socket that is listened on, and where.
    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// The socket, so many times.
    fn copies(listener: &TcpListener, count: usize) -> io::Result<Vec<OwnedFd>> {
        (0..count).map(|_| listener.as_fd().try_clone_to_owned()).collect()
    }

    fn folder() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("takeover");
        (folder, path)
    }

    /// Asks, from another thread.
    async fn asked(path: &Path) -> io::Result<Option<(Inherited, Predecessor)>> {
        let path = path.to_owned();
        spawn_blocking(move || ask(&path)).await.unwrap()
    }

    #[tokio::test]
    async fn who_is_not_there_is_no_error_and_who_is_another_is() {
        let (_folder, path) = folder();
        assert!(asked(&path).await.unwrap().is_none(), "there is no such file");
        drop(UnixListener::bind(&path).unwrap());
        assert!(asked(&path).await.unwrap().is_none(), "the process has crashed");
        std::fs::remove_file(&path).unwrap();
        let another = UnixListener::bind(&path).unwrap();
        for word in ["", "slotway", "220 mail.example ESMTP ready\r\n"] {
            let speaking = async {
                let another = another.try_clone().unwrap();
                spawn_blocking(move || another.accept().unwrap().0.write_all(word.as_bytes()).unwrap()).await.unwrap();
            };
            let (found, ()) = tokio::join!(asked(&path), speaking);
            assert!(found.unwrap_err().to_string().contains("no Slotway"), "{word}");
        }
    }

    #[tokio::test]
    async fn a_successor_has_the_sockets_at_once_and_the_turn_once_it_is_ready() {
        let (_folder, path) = folder();
        let (listener, address) = listening();
        let post = Post::at(&path).unwrap();
        let sockets = || copies(&listener, 1);
        let mut handing = pin!(post.hand_over(&sockets));
        let (inherited, predecessor) = tokio::select! {
            _ = &mut handing => panic!("nobody is ready"),
            found = asked(&path) => found.unwrap().unwrap(),
        };
        assert_eq!(inherited.left(), [address.to_string()]);
        assert!(inherited.owns_files, "it has to remove them");
        let stepping = spawn_blocking(|| predecessor.step_down());
        let successor = handing.await;
        assert!(!stepping.is_finished(), "it waits until the other has let go");
        drop(successor);
        stepping.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_successor_that_does_not_become_ready_changes_nothing() {
        let (_folder, path) = folder();
        let (listener, address) = listening();
        let post = Post::at(&path).unwrap();
        let sockets = || copies(&listener, 1);
        for _ in 0..2 {
            let (failed, found) =
                tokio::join!(post.try_hand_over(&sockets), async { drop(asked(&path).await.unwrap()) });
            assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{found:?}");
        }
        let (handed, found) = tokio::join!(post.try_hand_over(&sockets), async {
            let (inherited, mut predecessor) = asked(&path).await.unwrap().unwrap();
            predecessor.0.write_all(b"roger\n").unwrap();
            inherited.left()
        });
        assert_eq!((handed.unwrap_err().kind(), found), (io::ErrorKind::InvalidData, vec![address.to_string()]));
        let handing = async { drop(post.try_hand_over(&sockets).await.unwrap()) };
        let stepping = async {
            let (_, predecessor) = asked(&path).await.unwrap().unwrap();
            spawn_blocking(|| predecessor.step_down()).await.unwrap().unwrap();
        };
        tokio::join!(handing, stepping);
    }

    #[tokio::test]
    async fn more_sockets_than_a_message_carries_are_refused() {
        let (_folder, path) = folder();
        let (listener, _) = listening();
        let post = Post::at(&path).unwrap();
        let sockets = || copies(&listener, MOST + 1);
        let (handed, found) = tokio::join!(post.try_hand_over(&sockets), asked(&path));
        assert!(handed.unwrap_err().to_string().contains("too many"));
        assert!(found.is_err());
        let sockets = || copies(&listener, MOST);
        let (_, found) = tokio::join!(post.try_hand_over(&sockets), async {
            asked(&path).await.unwrap().map(|(inherited, _)| inherited.left().len())
        });
        assert_eq!(found, Some(MOST));
    }
}
