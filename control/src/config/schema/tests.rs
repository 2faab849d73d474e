use super::*;

/// Whether a value is as a schema has it, as far as our schemas go.
fn fits(value: &Value, schema: &Value) -> Result<(), String> {
    let no = |why: &str| Err(format!("{value} is not as {schema} has it: {why}"));
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        let is_right = match keyword.as_str() {
            "type" => match wanted.as_str().expect("one type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("{other}"),
            },
            "enum" => wanted.as_array().expect("a list").contains(value),
            "const" => value == wanted,
            "anyOf" => wanted.as_array().expect("a list").iter().any(|one| fits(value, one).is_ok()),
            "minimum" => value.as_i64() >= wanted.as_i64(),
            "maximum" => value.as_i64() <= wanted.as_i64(),
            "minLength" => value.as_str().is_some_and(|text| text.len() as u64 >= wanted.as_u64().unwrap()),
            "maxLength" => value.as_str().is_some_and(|text| text.len() as u64 <= wanted.as_u64().unwrap()),
            "minItems" => value.as_array().is_some_and(|list| list.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value.as_array().is_some_and(|list| list.len() as u64 <= wanted.as_u64().unwrap()),
            "uniqueItems" => value
                .as_array()
                .is_some_and(|list| list.iter().enumerate().all(|(at, one)| !list[..at].contains(one))),
            "pattern" => match (wanted.as_str().unwrap(), value.as_str()) {
                ("^/", Some(text)) => text.starts_with('/'),
                ("^0[xX][0-9a-fA-F]+$", Some(text)) => text
                    .strip_prefix("0x")
                    .is_some_and(|hex| !hex.is_empty() && hex.chars().all(|digit| digit.is_ascii_hexdigit())),
                (r"^[^/:\s]+$", Some(text)) => !text.is_empty() && !text.contains(['/', ':', ' ']),
                (_, None) => true,
                other => panic!("{other:?}"),
            },
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(item, wanted)?;
                }
                true
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match wanted.get(name) {
                        Some(schema) => fits(value, schema)?,
                        None => return no(name),
                    }
                }
                true
            }
            "additionalProperties" => wanted == &Value::Bool(false),
            "$schema" | "title" | "description" | "default" | "x-change" => true,
            other => panic!("an unknown keyword: {other}"),
        };
        if !is_right {
            return no(keyword);
        }
    }
    Ok(())
}

fn toml(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn the_default_file_is_as_the_schema_has_it_and_so_is_its_default_of_every_setting() {
    let schema = schema();
    fits(&toml(&Config::default_toml()), &schema).unwrap();
    let mut settings = 0;
    for (section, _) in SECTIONS {
        let known =
            schema.pointer(&format!("/properties/{section}/properties")).unwrap().as_object().unwrap();
        for (name, about) in known {
            settings += 1;
            assert!(about["description"].as_str().unwrap().contains(". "), "{name}");
            assert!(["hot", "rules", "restart"].iter().any(|word| about["x-change"] == *word), "{name}");
            if let Some(default) = about.get("default") {
                fits(default, about).unwrap();
            }
        }
    }
    assert_eq!(settings, Known::all().count());
}

/// What the schema lets pass and what it does not, as the reader of the file does it.
#[test]
fn the_schema_refuses_what_the_file_reader_refuses() {
    let schema = schema();
    for (text, is_right) in [
        ("[workers]\nidle = \"spin\"", true),
        ("[workers]\nidle = \"spinn\"", false),
        ("[workers]\ncores = [2, 3]", true),
        ("[workers]\ncores = []", false),
        ("[workers]\ncores = [1, 1]", false),
        ("[workers]\ncores = 0", false),
        ("[workers]\ncoers = 1", false),
        ("[umem]\nring_size_descs = 4096", true),
        ("[umem]\nring_size_descs = 1000", false),
        ("[umem]\nhugepages = true", true),
        ("[conntrack]\ntcp_loose = 0", true),
        ("[conntrack]\ntcp_loose = 2", false),
        ("[conntrack]\nudp_timeout = 0", false),
        ("[l2]\npass = [\"arp\", \"0x8864\", 0x88cc, \"llc\"]", true),
        ("[l2]\npass = [\"arpp\"]", false),
        ("[l2]\npass = [1500]", false),
        ("[api]\nsocket = \"fwd.sock\"", false),
        ("[[wire]]\nleft = \"eth0\"\nright = \"eth1\"\nqueues = \"auto\"", true),
        ("[[wire]]\nleft = \"eth/0\"\nright = \"eth1\"", false),
        ("[[wire]]\nleft = \"eth0\"\nright = \"eth1\"\nfull = \"drop\"", false),
        ("[wrie]\nx = 1", false),
    ] {
        assert_eq!(fits(&toml(text), &schema).is_ok(), is_right, "{text}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let checked = super::super::check_file(file.path());
        assert_eq!(checked.is_wrong(), !is_right, "{text}: {:?}", checked.errors);
    }
}
