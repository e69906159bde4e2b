//! What `show` makes of values, for every kind of terminal.
use ld3sh::Result;
use ld3sh::script::front::Drawing;
use ld3sh::shell::graphics::Graphics;
use ld3sh::shell::show::shown;
use ld3sh::shell::terminal::draw;
use rhai::Dynamic;

fn value(code: &str) -> Dynamic {
    ld3sh::script::engine::new(&Default::default()).eval(code).unwrap()
}
fn drawn(code: &str, graphics: Graphics, columns: usize, rows: usize) -> Result<Option<String>> {
    draw(&shown(&value(code))?, graphics, columns, rows)
}
const ALL: [&str; 11] = [
    "zeros([2, 3, 8, 8])",
    "zeros([1, 8, 8])",
    "ones([5, 7])",
    "randn([50, 3], #{ seed: 0 })",
    "randn([2, 50, 3], #{ seed: 0 })",
    "(zeros([4, 4]) / 0)",
    "arange(0, 20)",
    "[1, 2.5, (), tensor(3.0)]",
    "schedule::edm(noise::edm(), 5)",
    "[schedule::edm(noise::edm(), 5), schedule::logsnr(noise::edm(), 3)]",
    "plot::lines(#{ series: [#{ y: [1, 2] }] })",
];

#[test]
fn all_kinds_in_all_ways_at_all_sizes() {
    use Graphics::*;
    for code in ALL {
        let shown = shown(&value(code)).unwrap();
        for graphics in [Kitty, Iterm, Sixel, Blocks, Blocks256, Text, None] {
            for (columns, rows) in [(1, 1), (40, 10)] {
                let text = draw(&shown, graphics, columns, rows).unwrap();
                assert_eq!(text.is_none(), graphics == None || graphics == Text && text.is_none(), "{code}");
                assert!(text.is_none_or(|t| !t.is_empty()), "{code}");
            }
        }
        assert!(shown.image(1).is_ok(), "{code}");
    }
}

#[test]
fn what_cannot_be_drawn() {
    for (code, words) in [
        ("zeros([0, 3, 4, 4])", "empty"),
        ("zeros([2, 5, 4, 4])", "[2, 5, 4, 4]"),
        ("tensor(1.0)", "show"),
        ("1", "cannot draw int"),
        ("[\"a\"]", "cannot draw this array"),
        ("#{}", "cannot draw"),
    ] {
        let e = drawn(code, Graphics::Blocks, 80, 20).err().unwrap_or_else(|| panic!("{code}"));
        assert!(e.to_string().contains(words), "{code}: {e}");
    }
    assert!(drawn("[]", Graphics::Blocks, 80, 20).unwrap().unwrap().contains("nothing to draw"));
}
