//! Which days are lived through: a thousand, or what the environment says.

/// How many days a usual run has.
const SEEDS: u64 = 1_000;

/// Lives through each day, and says which it was if it ends in a panic. `SEED=7` asks for one
/// alone, `SEEDS=100000` for so many. Returns whether they were as many as usual, or more.
pub(crate) fn for_each(live: impl FnMut(u64)) -> bool {
    for_each_of(SEEDS, live)
}

/// [`for_each`] where `usual` days are usual.
pub(crate) fn for_each_of(usual: u64, mut live: impl FnMut(u64)) -> bool {
    let seeds = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(usual),
    };
    for seed in seeds.clone() {
        let fallen = Fallen(seed);
        live(seed);
        std::mem::forget(fallen);
    }
    seeds.end - seeds.start >= usual
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Forgotten at the end of a day that ends well.
struct Fallen(u64);

impl Drop for Fallen {
    fn drop(&mut self) {
        eprintln!("SEED={} brings this day again", self.0);
    }
}
