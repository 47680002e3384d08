//! An exporter core's stream against a real socket: what is sent arrives whole, however many
//! slices it lies in and however slowly it is read.

use std::future::poll_fn;
use std::io::{IoSlice, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use forebay_net::glommio_io::{SLICES_MAX, Stream, start_executor};

/// Print it, and one run can be had again.
const SEED: u64 = 0x0005_11ce;
const SLICES: usize = 20_000;

/// xorshift64 from [`SEED`].
fn random() -> impl FnMut() -> usize {
    let mut state = SEED;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    }
}

fn pieces() -> Vec<Vec<u8>> {
    let mut draw = random();
    let piece = |draw: &mut dyn FnMut() -> usize| {
        let bytes_max = [1, 20, 8_000][draw() % 3];
        vec![draw() as u8; draw() % bytes_max]
    };
    (0..SLICES).map(|_| piece(&mut draw)).collect()
}

/// Sends all of [`pieces`], up to more slices at once than the kernel is given. Knocks when it has
/// to wait for room.
async fn send_all(stream: &mut Stream, knock: &mpsc::Sender<()>) {
    let pieces = pieces();
    let (mut first, mut skip) = (0, 0);
    while first < pieces.len() {
        let shown = &pieces[first..pieces.len().min(first + 2 * SLICES_MAX)];
        let mut slices: Vec<IoSlice<'_>> = shown.iter().map(|piece| IoSlice::new(piece)).collect();
        slices[0] = IoSlice::new(&shown[0][skip..]);
        let sent = poll_fn(|cx| {
            let polled = stream.poll_send(cx, &slices);
            if polled.is_pending() {
                // Only the first one is heard.
                let _ = knock.send(());
            }
            polled
        });
        skip += sent.await.expect("the peer reads");
        while first < pieces.len() && skip >= pieces[first].len() {
            skip -= pieces[first].len();
            first += 1;
        }
    }
}

async fn receive_all(stream: &mut Stream) -> Vec<u8> {
    let mut received = Vec::new();
    loop {
        let before = received.len();
        poll_fn(|cx| stream.poll_receive(cx).map_ok(|bytes| received.extend_from_slice(bytes)))
            .await
            .expect("the peer ends in order");
        if received.len() == before {
            return received;
        }
    }
}

#[test]
fn what_lies_in_many_slices_arrives_whole_at_a_peer_that_is_slow_to_read() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (knock, waits) = mpsc::channel();
    let executor = start_executor("stream".to_owned(), None, move || async move {
        let mut stream = Stream::connect(address).await.expect("a listener");
        send_all(&mut stream, &knock).await;
        assert!(receive_all(&mut stream).await == vec![9; 100_000], "what comes back");
    });
    let executor = executor.expect("this machine has io_uring");
    let (mut peer, _) = listener.accept().expect("the executor connects");
    // Nothing is read before the sender stands still.
    waits.recv().expect("more is sent than fits into the sockets");
    let expected = pieces().concat();
    let mut got = vec![0; expected.len()];
    peer.read_exact(&mut got).expect("all of it");
    assert!(got == expected, "seed {SEED}: other bytes than were sent");
    peer.write_all(&vec![9; 100_000]).expect("the executor reads");
    drop(peer);
    executor.join().expect("what came back is what was sent");
}
