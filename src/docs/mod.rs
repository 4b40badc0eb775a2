//! Pages: why the code is as it is, what its words mean, and how to change it.
//!
//! | page | what it says |
//! |---|---|
//! | [`design`] | the promises, the way of the data, the merge with the argument for each rule |
//! | [`glossary`] | one term for one thing |
//! | [`conflicts`] | every kind of conflict by example, and what is none |
//! | [`decisions`] | decisions by applications, in SQL, and by programs |
//! | [`clinic`] | fifteen conflicts of all kinds closed in a few commands, and one decision undone |
//! | [`station`] | a station in an afternoon: three boards, a card, a base |
//! | [`weekly`] | what to type at the base when the card is back |
//! | [`keeper`] | what to type when something happened to a device |
//! | [`new_board`] | what to type when a board is added, and where |
//! | [`dead_base`] | what to type when a base is gone for good |
//! | [`upgrade`] | what happens when the application gets a new version |
//! | [`late_application`] | an application that starts where Packmule has made its tables |
//! | [`mod@format`] | the format, byte by byte |
//! | [`network`] | sessions over a network, byte by byte, and their limits |
//! | [`encrypted`] | encrypted bundles, byte by byte, and why they are so |
//! | [`json`] | the fields of the JSON that each command prints |
//! | [`errors`] | the codes of failures, what they mean and what to do |
//! | [`security`] | what is defended against, and what is not |
//! | [`contributing`] | how to add a table, a record, a policy, a command; how to replay a random test |
//! | [`changelog`] | what changed for who uses Packmule |
//!
//! They are Markdown files in `src/docs`, and can be read there too. A link has one target there and another
//! one here: `links.md` has those of here, and stands before each page, since the first definition of a link counts.

#[doc = include_str!("links.md")]
#[doc = include_str!("design.md")]
pub mod design {}

#[doc = include_str!("links.md")]
#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("links.md")]
#[doc = include_str!("clinic.md")]
pub mod clinic {}

#[doc = include_str!("links.md")]
#[doc = include_str!("conflicts.md")]
pub mod conflicts {}

#[doc = include_str!("links.md")]
#[doc = include_str!("decisions.md")]
pub mod decisions {}

#[doc = include_str!("links.md")]
#[doc = include_str!("station.md")]
pub mod station {}

#[doc = include_str!("links.md")]
#[doc = include_str!("weekly.md")]
pub mod weekly {}

#[doc = include_str!("links.md")]
#[doc = include_str!("upgrade.md")]
pub mod upgrade {}

#[doc = include_str!("late-application.md")]
pub mod late_application {}

#[doc = include_str!("links.md")]
#[doc = include_str!("keeper.md")]
pub mod keeper {}

#[doc = include_str!("links.md")]
#[doc = include_str!("new-board.md")]
pub mod new_board {}

#[doc = include_str!("links.md")]
#[doc = include_str!("dead-base.md")]
pub mod dead_base {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../core/wire/FORMAT.md")]
pub mod format {}

#[doc = include_str!("links.md")]
#[doc = include_str!("encrypted.md")]
pub mod encrypted {}

#[doc = include_str!("links.md")]
#[doc = include_str!("network.md")]
pub mod network {}

#[doc = include_str!("links.md")]
#[doc = include_str!("json.md")]
pub mod json {}

#[doc = include_str!("links.md")]
#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("links.md")]
#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("links.md")]
#[doc = include_str!("contributing.md")]
pub mod contributing {}

#[doc = include_str!("links.md")]
#[doc = include_str!("changelog.md")]
pub mod changelog {}
