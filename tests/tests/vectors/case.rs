//! A captured case, and what differs from it.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};

/// One case of a file.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Empty if nothing but the bytes went in.
    pub(crate) inputs: Map<String, Value>,
    /// The bytes that were produced, in hexadecimal; may be empty.
    pub(crate) hex: String,
    /// Null if the bytes are all that is expected.
    pub(crate) expect: Value,
}

/// One field that is not as captured.
#[derive(Debug)]
pub(crate) struct Mismatch {
    case: String,
    field: String,
    expected: String,
    got: String,
}

/// What differs; or why the case cannot be run.
pub(crate) type Outcome = Result<Vec<Mismatch>, String>;

/// Runs a case of one kind.
pub(crate) type Runner = fn(&Case) -> Outcome;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, field, expected, got } = self;
        write!(f, "  {case}: {field}: expected {expected}, got {got}")
    }
}

impl Case {
    fn read(value: &Value) -> Option<Self> {
        let text = |field| Some(value.get(field)?.as_str()?.to_owned());
        Some(Self {
            name: text("name")?,
            inputs: match value.get("inputs")? {
                Value::Null => Map::new(),
                inputs => inputs.as_object()?.clone(),
            },
            hex: text("hex")?,
            expect: value.get("expect").cloned().unwrap_or_default(),
        })
    }

    pub(crate) fn of_unknown_kind() -> Self {
        Self {
            name: "unknown".to_owned(),
            inputs: Map::from_iter([("colour".to_owned(), json!("blue"))]),
            hex: String::new(),
            expect: json!({}),
        }
    }

    /// Whether the inputs are exactly these fields.
    pub(crate) fn has_inputs(&self, fields: &[&str]) -> bool {
        self.inputs.len() == fields.len() && fields.iter().all(|f| self.inputs.contains_key(*f))
    }

    pub(crate) fn fault(&self, fault: &str) -> Mismatch {
        Mismatch {
            case: self.name.clone(),
            field: "case".to_owned(),
            expected: "one that can be run".to_owned(),
            got: fault.to_owned(),
        }
    }

    pub(crate) fn text(&self, field: &str) -> Result<&str, String> {
        let value = self.inputs.get(field).and_then(Value::as_str);
        value.ok_or_else(|| format!("inputs.{field} is not a text"))
    }

    pub(crate) fn number<N: TryFrom<u64>>(&self, field: &str) -> Result<N, String> {
        let value = self.inputs.get(field).and_then(Value::as_u64);
        value
            .and_then(|value| N::try_from(value).ok())
            .ok_or_else(|| format!("inputs.{field} is not a number of its range"))
    }

    /// Makes what is expected wrong in one place.
    pub(crate) fn spoil(&mut self) {
        if !self.expect.is_null() {
            spoil(&mut self.expect);
        } else if let Some(last) = self.hex.pop() {
            self.hex.push(if last == '0' { '1' } else { '0' });
        } else {
            self.expect = json!("spoilt");
        }
    }

    /// Takes the last byte away, where another one would be as good.
    pub(crate) fn cut(&mut self) {
        self.hex.truncate(self.hex.len().saturating_sub(2));
    }

    /// Compares each expected field. Nothing that was captured may go unlooked at, so a field that
    /// `got` does not have is a mismatch.
    pub(crate) fn compare(&self, expect: &Value, got: &Value) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        self.compare_at("", expect, got, &mut mismatches);
        mismatches
    }

    fn compare_at(&self, at: &str, expect: &Value, got: &Value, found: &mut Vec<Mismatch>) {
        match (expect, got) {
            (Value::Object(expect), Value::Object(got)) => {
                for (field, expect) in expect {
                    let got = got.get(field).unwrap_or(&Value::Null);
                    self.compare_at(&join(at, field), expect, got, found);
                }
            }
            // Go writes an empty list that was never filled as null.
            (Value::Null, Value::Array(got)) if got.is_empty() => {}
            (Value::Array(expect), Value::Array(got)) if expect.len() == got.len() => {
                for (i, (expect, got)) in expect.iter().zip(got).enumerate() {
                    self.compare_at(&join(at, &i.to_string()), expect, got, found);
                }
            }
            _ if expect == got => {}
            _ => found.push(Mismatch {
                case: self.name.clone(),
                field: if at.is_empty() { "result".to_owned() } else { at.to_owned() },
                expected: expect.to_string(),
                got: got.to_string(),
            }),
        }
    }
}

fn join(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") }
}

/// All cases of a file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<Case>, Mismatch> {
    let fault = |got: String| Mismatch {
        case: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        field: "file".to_owned(),
        expected: "a list of cases {name, description, inputs, hex, expect?}".to_owned(),
        got,
    };
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let values: Value = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
    let list = values.as_array().ok_or_else(|| fault("no list".to_owned()))?;
    if list.is_empty() {
        return Err(fault("no case".to_owned()));
    }
    let read = |value: &Value| Case::read(value).ok_or_else(|| fault(value.to_string()));
    list.iter().map(read).collect()
}

fn spoil(value: &mut Value) {
    match value {
        Value::Null => *value = json!(["spoilt"]),
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => *value = json!(number.as_i64().unwrap_or(0) + 1),
        Value::String(text) => *text = "spoilt".to_owned(),
        Value::Array(list) => match list.last_mut() {
            Some(last) => spoil(last),
            None => list.push(json!("spoilt")),
        },
        Value::Object(fields) => {
            if let Some((_, last)) = fields.iter_mut().next_back() {
                spoil(last);
            }
        }
    }
}
