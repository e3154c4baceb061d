//! A way to the API server that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: SocketAddr,
    open: watch::Sender<bool>,
    swallow: AtomicBool,
    pub(crate) swallowed: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn to(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let state = Arc::new(State {
            upstream,
            open: watch::channel(true).0,
            swallow: AtomicBool::new(false),
            swallowed: AtomicUsize::new(0),
        });
        let proxy = Self {
            address: listener.local_addr()?,
            state: Arc::clone(&state),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&state)));
            }
        });
        Ok(proxy)
    }

    /// Ends every connection; new ones end at once.
    pub(crate) fn cut(&self) {
        self.state.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.state.open.send_replace(true);
    }

    /// The next request reaches the API server; its answer does not come back.
    pub(crate) fn swallow_next_answer(&self) {
        self.state.swallow.store(true, Ordering::SeqCst);
    }

    pub(crate) fn swallowed(&self) -> usize {
        self.state.swallowed.load(Ordering::SeqCst)
    }
}

async fn carry(mut client: TcpStream, state: Arc<State>) -> Result<()> {
    let mut open = state.open.subscribe();
    if !*open.borrow_and_update() {
        return Ok(());
    }
    let mut server = TcpStream::connect(state.upstream).await?;
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let mut cursed = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                n => {
                    cursed |= state.swallow.load(Ordering::SeqCst);
                    server.write_all(&asked[..n]).await?;
                }
            },
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                n if cursed && state.swallow.swap(false, Ordering::SeqCst) => {
                    assert!(n > 0);
                    state.swallowed.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                n => client.write_all(&answered[..n]).await?,
            },
            changed = open.changed() => {
                if changed.is_err() || !*open.borrow_and_update() {
                    return Ok(());
                }
            }
        }
    }
}
