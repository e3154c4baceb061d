//! From a server's answer to lines of predictions.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::failure::beginning;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    predictions: Vec<&'a RawValue>,
}

/// The predictions of an answer to `rows` rows, a line each. Errors: what is wrong with it, as the end of
/// a sentence.
pub(crate) fn lines(body: &[u8], rows: usize) -> Result<Vec<u8>, String> {
    let shown = || beginning(&String::from_utf8_lossy(&body[..body.len().min(2000)]), 400);
    let text = std::str::from_utf8(body).map_err(|_| format!("is not UTF-8: {}", shown()))?;
    let answer: Answer<'_> = serde_json::from_str(text)
        .map_err(|error| format!("is not {{\"predictions\": […]}} ({error}): {}", shown()))?;
    let found = answer.predictions.len();
    if found != rows {
        return Err(format!(
            "holds {found} predictions for {rows} rows: {}",
            shown()
        ));
    }
    let mut lines = Vec::with_capacity(body.len());
    for prediction in answer.predictions {
        compact(prediction.get(), &mut lines);
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Leaves out the white space between the parts of a JSON text: it then is one line, and numbers and
/// strings are as the server wrote them.
fn compact(json: &str, out: &mut Vec<u8>) {
    let (mut quoted, mut escaped) = (false, false);
    for byte in json.bytes() {
        if !quoted && byte.is_ascii_whitespace() {
            continue;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ => {}
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn predictions_are_lines_as_they_were_written() {
        let body =
            b"{\n \"predictions\": [[0.10, 1e-7\n], {\"a\": \"b \\\" ] c\"}, null],\n \"more\": 1}";
        let expected = "[0.10,1e-7]\n{\"a\":\"b \\\" ] c\"}\nnull\n";
        assert_eq!(
            String::from_utf8(lines(body, 3).unwrap()).unwrap(),
            expected
        );
    }

    #[test]
    fn other_answers_are_told_with_their_beginning() {
        for (body, wanted) in [
            (
                &b"{\"predictions\": [1]}"[..],
                "holds 1 predictions for 2 rows",
            ),
            (b"{\"outputs\": [1, 2]}", "missing field `predictions`"),
            (b"<html>", "is not {\"predictions\": […]}"),
            (b"\xff", "is not UTF-8"),
            (b"{\"predictions\": 7}", "is not {\"predictions\": […]}"),
        ] {
            let told = lines(body, 2).unwrap_err();
            assert!(told.contains(wanted), "{told}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ \\PC\"\\\\\n]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z \"]{0,4}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn however_it_is_laid_out_the_lines_are_the_same(values in prop::collection::vec(json(), 0..6)) {
            let answer = serde_json::json!({ "predictions": values });
            let pretty = serde_json::to_vec_pretty(&answer).unwrap();
            let expected: String = values.iter().map(|value| format!("{value}\n")).collect();
            prop_assert_eq!(String::from_utf8(lines(&pretty, values.len()).unwrap()).unwrap(), expected);
            prop_assert!(lines(&pretty, values.len() + 1).is_err());
        }

        #[test]
        fn no_bytes_panic(body: Vec<u8>) {
            let _ = lines(&body, 1);
        }
    }
}
