//! What applications wrote becomes frames.
//!
//! May import `store` to `show`.
//!
//! | file | what it does |
//! |---|---|
//! | `watch` | the triggers that record which rows change |
//! | `at_once` | the same, of many tables |
//! | `dirty` | the lists that they append to; what an entry says |
//! | `changed_rows` | the rows in a list, each once, as its table has them |
//! | `ops` | reads rows and writes them as ops |
//! | `fresh` | rows above a mark, which are new: no trigger records them |
//! | `append` | append tables: the rows that no trigger records |
//! | `not_sent` | what of tracked tables does not travel |
//! | `adopt` | adopts a definition for a table here |
//! | `declare` | what holds where devices declare a table differently |
//! | `follow` | columns that other devices add: they follow, or wait for the application |
//! | `groups` | writes one group of frames of everything that was recorded |
//! | `redeclare` | seals a declaration of this device |
//! | `merge_definitions` | merges the definitions of several devices |
//! | `uniques` | the UNIQUE indexes that Packmule makes |
//! | `gathering` | the tables in which a base gathers the rows of other devices |
//! | `evolve` | tables that the application changed |
//! | `heard` | what other devices say of tables |
//! | `renaming` | which columns of a table are called otherwise now |
//! | `reshape` | columns that an application renames, drops or retypes |
//! | `column_order` | the order in which columns stood, by which one is noticed that was dropped and added again |
//! | `column_numbers` | what is recorded of rows, when columns get other numbers |
//! | `leaving` | tables that this device tracks no longer, said to the others |
//! | `held` | tables that are held and were made anew |
//! | `suspended` | what the application of a suspended table had seen |
//! | `renumbered` | tables without a key whose rows have got other rowids |
//! | `runs` | sums of runs of settled rows |
//! | `differences` | how a table that was made anew differs from what it was |
//! | `reissue` | rows of per-device tables sealed again, for bases that lack what is folded |
//! | `restate` | a table that its application made anew |
//! | `seal` | the seal: schema changes first, then the groups |
//! | `other_key` | tables of one name with different primary keys |
//! | `respeak` | the columns of versions, when the table has become another one |
//! | `waited` | what waited for a table that is shown now |
//! | `verdict` | what a fold made unknowable, put into the log |

pub(crate) mod adopt;
pub(crate) mod append;
pub(crate) mod at_once;
mod changed_rows;
pub(crate) mod column_numbers;
mod column_order;
pub(crate) mod declare;
mod differences;
pub(crate) mod dirty;
pub(crate) mod evolve;
pub(crate) mod follow;
pub(crate) mod fresh;
pub(crate) mod gathering;
pub(crate) mod groups;
pub(crate) mod heard;
pub(crate) mod held;
pub(crate) mod leaving;
pub(crate) mod merge_definitions;
pub(crate) mod not_sent;
pub(crate) mod ops;
pub(crate) mod other_key;
pub(crate) mod redeclare;
pub(crate) mod reissue;
mod renaming;
pub(crate) mod renumbered;
pub(crate) mod reshape;
pub(crate) mod respeak;
pub(crate) mod restate;
pub(crate) mod runs;
pub(crate) mod seal;
pub(crate) mod suspended;
pub(crate) mod uniques;
pub(crate) mod verdict;
pub(crate) mod waited;
pub(crate) mod watch;
