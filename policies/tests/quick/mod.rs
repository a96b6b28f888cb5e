//! How the suites over the table make policies: as they are, but those that search before they run with less to search.
//! It refuses to change what a policy does once it is made.

/// The spec by which a suite makes the row of this name.
pub fn spec(name: &str) -> String {
    match name {
        "static" => "static:12".to_owned(),
        "learned" => "learned:@12".to_owned(),
        "lookahead" => "lookahead:@12".to_owned(),
        _ => name.to_owned(),
    }
}
