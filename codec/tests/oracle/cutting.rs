//! The pieces of a request hold its items, in order, under the same resources and scopes.

use fastrand::Rng;
use forebay_codec::check::check;
use forebay_codec::schema;
use forebay_codec::signal::{Counts, Signal};
use forebay_codec::splice::Chain;
use forebay_codec::split::split;

use crate::decoded::Decoded;
use crate::verdict::case;
use crate::{generate, mangle};

mod keys;
mod merging;
mod sharding;

#[test]
fn pieces_hold_all_items_in_order_and_keep_to_the_limits() {
    let mut cuts = 0;
    for seed in 0..3_000 {
        let (signal, bytes) = case(seed);
        let mut random = Rng::with_seed(!seed);
        let items_max = random.u64(0..8);
        let bytes_max = if random.bool() { 0 } else { random.u64(1..4_000) };
        let whole = Decoded::from_proto(signal, &bytes).unwrap();
        let checked = check(signal, bytes.into()).unwrap();
        let counts = checked.counts();

        let pieces = split(checked, items_max, bytes_max);

        let note = format!("seed {seed}, {signal}, {items_max} items, {bytes_max} bytes");
        let mut items = Vec::new();
        let mut total = Counts::default();
        for piece in &pieces {
            let decoded = honest(piece, &note);
            let fits = (items_max == 0 || piece.counts.items <= items_max)
                && (bytes_max == 0 || piece.bytes <= bytes_max);
            let is_whole = signal == Signal::Profiles;
            assert!(fits || is_whole || piece.counts.items <= 1, "{note}: {:?}", piece.counts);
            items.extend(decoded.items());
            total += piece.counts;
        }
        assert_eq!(total, counts, "{note}");
        assert_eq!(items, whole.items(), "{note}");
        cuts += pieces.len() - 1;
    }
    assert!(cuts > 3_000, "only {cuts} cuts: the test tests little");
}

#[test]
fn pieces_put_together_again_are_a_request_with_the_same_items() {
    for seed in 0..500 {
        let (signal, bytes) = case(seed);
        if signal == Signal::Profiles {
            continue;
        }
        let whole = Decoded::from_proto(signal, &bytes).unwrap();
        let mut chain = Chain::new(signal);
        for piece in split(check(signal, bytes.into()).unwrap(), 2, 0) {
            chain.append(piece);
        }
        let joined = honest(&chain, &format!("seed {seed}"));
        assert_eq!(joined.items(), whole.items(), "seed {seed}");
    }
}

/// A batch of a few requests of one signal, in any legal form and in any number of parts.
fn batch(seed: u64) -> Vec<Chain> {
    let mut random = Rng::with_seed(seed);
    let signal = Signal::ALL[random.usize(0..Signal::ALL.len())];
    let one = |_| {
        let request = generate::request(signal, &mut random).to_proto();
        let bytes = match random.bool() {
            true => request,
            false => mangle::legal_form(schema::request(signal), &request, &mut random),
        };
        let pieces_of = if random.bool() { 2 } else { 0 };
        let mut chain = Chain::new(signal);
        let pieces = split(check(signal, bytes.into()).expect("prost wrote it"), pieces_of, 0);
        pieces.into_iter().for_each(|piece| chain.append(piece));
        chain
    };
    (0..1 + seed as usize % 5).map(one).collect()
}

/// Decodes a chain, and holds it to what it says of itself.
fn honest(chain: &Chain, note: &str) -> Decoded {
    let bytes = chain.parts.concat();
    assert_eq!(bytes.len() as u64, chain.bytes, "{note}");
    let checked = check(chain.signal, bytes.clone().into());
    let checked = checked.unwrap_or_else(|error| panic!("{note}: {error}"));
    assert_eq!(checked.counts(), chain.counts, "{note}");
    Decoded::from_proto(chain.signal, &bytes).expect("check took it, so prost does")
}
