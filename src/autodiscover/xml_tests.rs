use super::*;
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<usize, Wrong> {
    let source = text(bytes, 4096)?;
    Tree::read(&source).map(|tree| tree.elements.len())
}

#[test]
fn bombs_entities_and_document_types_are_refused_before_anything_grows() {
    let bomb = r#"<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>"#;
    let outside = r#"<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>"#;
    for document in [
        bomb,
        outside,
        "<!DOCTYPE a><a/>",
        r#"<!DOCTYPE a SYSTEM "http://evil/">"#,
    ] {
        assert_eq!(
            read(document.as_bytes()),
            Err(Wrong::DocumentType),
            "{document}"
        );
    }
    for document in ["<a>&x;</a>", "<a b='&x;'/>", "<a>&#0;</a>", "<a>&#1;</a>"] {
        assert_eq!(read(document.as_bytes()), Err(Wrong::Entity), "{document}");
    }
    let deep = "<a>".repeat(DEPTH_MAX + 1);
    assert_eq!(read(deep.as_bytes()), Err(Wrong::TooMany));
    assert_eq!(read(&vec![b' '; 4097]), Err(Wrong::TooLarge(4096)));
    let wide = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS_MAX));
    let source = text(wide.as_bytes(), 1 << 20).unwrap();
    assert_eq!(Tree::read(&source).unwrap_err(), Wrong::TooMany);
}

#[test]
fn a_byte_order_mark_is_read_and_a_false_encoding_is_not() {
    let said = |encoding: &str| format!("<?xml version=\"1.0\" encoding=\"{encoding}\"?><a/>");
    let mut marked = vec![0xef, 0xbb, 0xbf];
    marked.extend(said("UTF-8").bytes());
    assert_eq!(read(&marked), Ok(1));
    let units = |text: &str| -> Vec<u8> {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect()
    };
    assert_eq!(read(&units(&said("utf-16"))), Ok(1));
    assert_eq!(read(&units(&said("utf-8"))), Err(Wrong::Encoding));
    assert_eq!(
        read(units(&said("utf-16")).get(2..).unwrap()),
        Err(Wrong::Encoding)
    );
    assert_eq!(read(b"\xff\xfe<"), Err(Wrong::Encoding));
    assert_eq!(read(said("iso-8859-1").as_bytes()), Err(Wrong::Encoding));
    assert_eq!(read(b"<a>\xe4</a>"), Err(Wrong::Encoding));
}

#[test]
fn what_is_no_document_with_one_root_is_refused() {
    for document in [
        "",
        " ",
        "text",
        "<a>",
        "</a>",
        "<a></b>",
        "<a/><b/>",
        "<a/>x",
        "x<a/>",
        "<a b/>",
        "<a b=1/>",
        "<a b='1' b='2'/>",
        "<a>&</a>",
        "<a><!-- -- --></a>",
        "<a><![CDATA[</a>",
        "<a/><?xml version=\"1.0\"?>",
        "<>",
        "<:/>",
    ] {
        assert_eq!(
            read(document.as_bytes()),
            Err(Wrong::Syntax),
            "{document:?}"
        );
    }
}

#[test]
fn elements_know_their_place_their_text_and_their_attributes() {
    let written =
        "<?xml version='1.0'?><x:A k='1&amp;2'><b> c&lt;<!-- - --><![CDATA[&]]></b ><d/></x:A>";
    let source = text(written.as_bytes(), 4096).unwrap();
    let tree = Tree::read(&source).unwrap();

    let (b, d) = (
        tree.find(&["a", "B"]).unwrap(),
        tree.find(&["a", "d"]).unwrap(),
    );

    let part = |place: &Range<usize>| written.get(place.clone()).unwrap();
    assert_eq!(tree.value(0, "b"), Some("c<&"));
    assert_eq!(
        part(&tree.at(b).unwrap().whole),
        "<b> c&lt;<!-- - --><![CDATA[&]]></b >"
    );
    assert_eq!(
        part(&tree.at(b).unwrap().inner),
        " c&lt;<!-- - --><![CDATA[&]]>"
    );
    assert_eq!(part(&tree.at(d).unwrap().whole), "<d/>");
    assert_eq!(tree.at(0).unwrap().attributes, [("k", "1&2".to_owned())]);
    assert_eq!(tree.at(0).unwrap().qualified, "x:A");
    assert_eq!(tree.children(0).collect::<Vec<_>>(), [b, d]);
    assert!(tree.is_leaf(b) && tree.is_leaf(d) && !tree.is_leaf(0));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _read = read(&bytes);
    }

    #[test]
    fn anything_like_xml_is_read_without_a_panic_and_spans_hold(
        parts in proptest::collection::vec(
            proptest::sample::select(vec!["<a>", "</a>", "<b x='1'>", "</b>", "<c/>", "t", "&amp;", "&#65;", "<!--c-->", "<![CDATA[d]]>", "<", ">", "'", " ", "é", "<?p?>"]),
            0..40)
    ) {
        let written: String = parts.concat();
        if let Ok(source) = text(written.as_bytes(), 4096)
            && let Ok(tree) = Tree::read(&source)
        {
            for element in tree.iter() {
                let whole = written.get(element.whole.clone()).unwrap();
                prop_assert!(whole.starts_with('<') && whole.ends_with('>'));
                prop_assert!(whole.get(1..).unwrap().starts_with(element.qualified));
                prop_assert!(written.get(element.inner.clone()).is_some());
            }
        }
    }

    #[test]
    fn what_is_escaped_reads_back(letters in "\\PC{0,40}") {
        let written = format!("<a>{}</a>", escaped(&letters));
        let source = text(written.as_bytes(), 4096).unwrap();
        let tree = Tree::read(&source).unwrap();
        let kept: String = letters.chars().filter(|letter| is_letter(*letter)).collect();
        prop_assert_eq!(&tree.at(0).unwrap().value, &kept);
    }
}
