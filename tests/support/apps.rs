//! The app file that most tests begin from: one task with one small model. It holds no test, and no app that only one test has.

/// An app with the task `keyword` and one stream of it: `head` stands before the task, `stream` are the stream's other keys.
pub fn keyword_app(head: &str, stream: &str) -> String {
    format!(
        r#"{head}[[task]]
name = "keyword"
[[task.variant]]
model = "zoo:kws_small"
accuracy = 0.9
[[stream]]
task = "keyword"
{stream}"#
    )
}
