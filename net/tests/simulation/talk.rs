//! What a client needs to speak a protocol, and to know what to ask for and what to make of the
//! answers. The simulations of `net` and of the engine share their clients.

use forebay_net::ring::fake::Dice;

/// A request that a client is about to make.
pub(crate) struct Made {
    pub(crate) id: u64,
    pub(crate) path: String,
    /// Beside those that say how long the body is.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Vec<u8>,
}

/// An answer as a client read it.
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) status: u16,
    /// Headers and trailers.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Who knows all requests of a day and judges what became of them.
pub(crate) trait Oracle {
    /// The next request of a client that speaks to `listener`.
    fn make(&mut self, client: usize, listener: usize, dice: &mut Dice) -> Made;
    /// A whole answer came, to the request `id`.
    fn answer(&mut self, id: u64, got: &Got);
    /// A client spoilt what it was saying: nobody knows how that will be read.
    fn spoil(&mut self, client: usize);
    /// Whether a client that behaves has to get an answer to `id`, whatever happens.
    fn is_owed(&self, id: u64) -> bool;
}

/// A protocol as a client speaks it.
pub(crate) trait Talk {
    fn wants_request(&self) -> bool;
    fn say(&mut self, made: Made, dice: &mut Dice);
    /// What is to be written next; nothing, if there is nothing or it has to wait.
    fn next_output(&mut self, dice: &mut Dice) -> Vec<u8>;
    fn hear(&mut self, bytes: &[u8], oracle: &mut dyn Oracle);
    /// Whether it gave up requests that the server may still work on.
    fn has_given_up_some(&self) -> bool;
    /// Whether nothing waits to be written, as far as the client's requests go.
    fn is_all_said(&self) -> bool;
    /// The requests that still want an answer.
    fn unanswered(&self) -> Vec<u64>;
    /// Whether the server said that the connection ends.
    fn was_told_to_go(&self) -> bool;
}
