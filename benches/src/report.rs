//! What a run found out, for people: a table for the terminal, a page for the browser.
//!
//! Both are drawn from a [`Result`] alone and give the same bytes for the same result. They judge
//! nothing: a figure that is missing is shown as missing, and a partial run says that it is one.
//!
//! Always
//! - The page is one file: no font, script, style or picture comes from elsewhere.
//! - Text of a result is escaped; it can't become markup.
//! - Without JavaScript the page shows all of its figures; the script only raises and names marks.

use crate::result::Result;

mod families;
mod page;
mod plots;
mod quantity;
mod scale;
mod svg;
mod terminal;

/// A table of a run's medians for a terminal, about 110 columns wide, with a line end.
pub fn table(result: &Result) -> String {
    terminal::table(result)
}

/// A page with the plots, the figures, and how they were taken: a whole HTML document.
pub fn html(result: &Result) -> String {
    page::html(result)
}
