"""Tables, transcripts and configs with something wrong about them."""

import os
import subprocess
import sys

import pytest
import yaml

from espnet_smop.bin import data_dir as data_dir_command
from espnet_smop.bin import results
from espnet_smop.bin.avsr_train import get_parser
from espnet_smop.config import ConfigError, load_config, parse_assignment
from espnet_smop.corpus import datadir
from espnet_smop.corpus.datadir import DataDirError
from espnet_smop.corpus.readers.auto_avsr import AutoAVSRReader
from espnet_smop.corpus.readers.av_hubert import AVHuBERTReader
from espnet_smop.corpus.readers.lrs3 import LRS3Reader, TextFileError, read_text_file
from espnet_smop.corpus.utterance import CorpusError, safe_id
from espnet_smop.fileio.table import TableError, read_table
from espnet_smop.fileio.video import VideoFileError, VideoScpReader
from espnet_smop.results.sclite_report import report
from espnet_smop.results.transcripts import ScoringError, characters, read_text, words
from espnet_smop.results.trn import Utterance, format_line, read_trn
from espnet_smop.tasks.avsr import AVSRTask

READERS = {
    "datadir": (read_table, TableError),
    "scoring": (read_text, ScoringError),
    "video.scp": (lambda path: VideoScpReader(path).paths, VideoFileError),
}
WANTED = {"a": "one two", "b": "three"}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.mark.parametrize(
    "content",
    [
        b"a one two\nb three\n",
        b"a one two\r\nb three\r\n",
        b"\xef\xbb\xbfa one two\nb three\n",
        b"a\tone two\nb\t three",
        b"\n  a   one two  \n\n b three\n\n",
    ],
    ids=["plain", "CRLF", "BOM", "tabs", "blanks"],
)
def test_tables_as_windows_and_editors_write_them(reader, tmp_path, content):
    read, _ = reader
    (tmp_path / "table").write_bytes(content)
    assert read(tmp_path / "table") == WANTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a one\na two\n", r"table:2.*(\ba\b.*twice|duplicate id a)"),
        (b"a one\nb caf\xe9\n", r"table:2: is not UTF-8"),
        (b"a one\nb \0\n", r"table:2: has a NUL byte"),
    ],
)
def test_tables_that_are_none(reader, tmp_path, content, message):
    read, error = reader
    (tmp_path / "table").write_bytes(content)
    with pytest.raises(error, match=message) as raised:
        read(tmp_path / "table")
    assert "\n" not in str(raised.value)


def test_other_blanks_and_line_ends_belong_to_the_text(tmp_path):
    text = "a\u00a0b\u2028c\x85d\x0be"
    datadir.write_table(tmp_path / "table", {"id\u00a0x": text})
    assert read_table(tmp_path / "table") == {"id\u00a0x": text}
    assert read_table(tmp_path / "table", keep_first=True) == {"id\u00a0x": text}


@pytest.mark.parametrize("table", [{"a b": "x"}, {"a": "x\ny"}, {"": "x"}, {"a": "\udce9"}])
def test_what_would_break_a_table_is_not_written(tmp_path, table):
    with pytest.raises(DataDirError, match="does not fit into a line"):
        datadir.write_table(tmp_path / "table", table)
    assert not list(tmp_path.iterdir())


TEXTS = {
    "NFD": "cafe\u0301",
    "NFC": "caf\u00e9",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "marks of direction": "a \u202ecba\u202c \u200fb",
    "control characters": "a\x01b \x1b[31mred \x7f \x0c",
    "no width": "\u200b \ufeffa b\u2060",
    "emoji": "\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea",
    "beyond Unicode's planes": "\U0010ffff \ufffe",
    "one long word": "x" * 100_000,
    "many words": "a b " * 500,
    "markup": "(a) {b / c} ; * @ \\ #",
    "options": "-rf --help -",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_all_kinds_are_kept_and_scored(tmp_path, name):
    text = TEXTS[name].strip()
    datadir.write_table(tmp_path / "text", {"a": text})
    assert read_text(tmp_path / "text") == {"a": text}
    lines = {}
    for kind, split in (("word", words), ("character", characters)):
        lines[kind] = [Utterance("s", "a", split(text)[:5000])]
        (tmp_path / kind).write_text(format_line(lines[kind][0]) + "\n", encoding="utf-8")
        read = read_trn(tmp_path / kind)
        assert len(read[0].tokens) == len(lines[kind][0].tokens)
        count = len(read[0].tokens)
        empty = [Utterance("s", "a", [])]
        assert f"Scores: (#C #S #D #I) 0 0 {count} 0" in report(read, empty, "x")


@pytest.mark.parametrize("text", ["", " ", " \t ", "\r"])
def test_an_utterance_of_blanks_alone_is_removed(tmp_path, capsys, text):
    directory = data_dir(tmp_path / "d", text={"a": "one", "b": text, "c": "three"})
    data_dir_command.main(["fix", str(directory)])
    assert "removed b: empty in text" in capsys.readouterr().err
    assert read_table(directory / "text") == {"a": "one", "c": "three"}


@pytest.mark.parametrize(
    ("utterance", "speaker"),
    [("../b", "s"), ("/tmp/b", "s"), ("a/b", "s"), ("b", ".."), ("b", "."), ("b", "s/../..")],
)
def test_ids_that_are_paths_leave_the_directory_alone(tmp_path, utterance, speaker):
    table = {"a": "x", utterance: "x"}
    tables = dict.fromkeys(("text", "wav_scp", "video_scp"), table)
    directory = data_dir(tmp_path / "d", **tables, utt2spk={"a": "s", utterance: speaker})
    words = ["--data_dir", str(directory), "--output_dir", str(tmp_path / "out" / "set")]
    with pytest.raises(
        DataDirError, match="ids become names of files and must not have '/'"
    ) as raised:
        data_dir_command.main(["format", *words])
    assert "\n" not in str(raised.value)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".flac", ".mkv")]


def data_dir(directory, **tables):
    directory.mkdir()
    whole = {n: {u: f"{u}.x" for u in "abc"} for n in (*datadir.REQUIRED, *datadir.MEDIA)}
    for name, table in {**whole, **tables}.items():
        lines = "".join(f"{k} {v}\n" for k, v in table.items())
        (directory / name.replace("_", ".")).write_text(lines)
    return directory


def test_an_id_that_is_not_everywhere_is_named(tmp_path, capsys):
    directory = data_dir(tmp_path / "d", wav_scp={"a": "1", "b": "2"})
    assert datadir.check(directory) == [
        f"{directory}: utterance c is not in wav.scp",
        f"{directory}/spk2utt: does not match utt2spk",
    ]
    data_dir_command.main(["fix", str(directory)])
    assert "removed c: not in wav.scp" in capsys.readouterr().err
    assert set(read_table(directory / "text")) == {"a", "b"}
    assert datadir.check(directory) == []


def test_windows_tables_are_repaired(tmp_path):
    directory = data_dir(tmp_path / "d")
    for path in directory.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert any("byte-order mark" in line for line in datadir.check(directory))
    data_dir_command.main(["fix", str(directory)])
    assert datadir.check(directory) == []
    assert (directory / "text").read_bytes() == b"a a.x\nb b.x\nc c.x\n"


def test_a_table_that_is_no_text_is_one_line(tmp_path):
    directory = data_dir(tmp_path / "d")
    (directory / "text").write_bytes(b"a \xff\n")
    for options in ([], ["--check"]):
        with pytest.raises(DataDirError, match=r"text:1: is not UTF-8"):
            data_dir_command.main(["fix", str(directory), *options])


def test_order_is_that_of_bytes_under_every_locale(tmp_path):
    ids = ["a-b", "a_b", "ab", "aB", "B", "É", "é", "Z", "z", "ä", "10", "9"]
    code = (
        "import sys; from espnet_smop.corpus.datadir import *\n"
        "from espnet_smop.fileio.table import *\n"
        "table = read_table(sys.argv[1]); write_table(sys.argv[2], table)"
    )
    (tmp_path / "in").write_text("".join(f"{i} x\n" for i in ids), encoding="utf-8")
    written = set()
    for locale in ("C", "C.UTF-8", "de_DE.UTF-8"):
        out = tmp_path / locale
        env = {**os.environ, "LC_ALL": locale}
        subprocess.run([sys.executable, "-c", code, tmp_path / "in", out], env=env, check=True)
        written.add(out.read_bytes())
    assert written == {b"".join(sorted(f"{i} x\n".encode() for i in ids))}


def test_hypotheses_of_another_set_are_not_merged(tmp_path):
    (tmp_path / "ref").write_text("a x\nb y\n")
    out = tmp_path / "log/output.1/1best_recog"
    out.mkdir(parents=True)
    for name in ("token", "token_int", "score", "text"):
        (out / name).write_text("a x\nc z\n")
    words = ["--ref", str(tmp_path / "ref"), "--log_dir", str(tmp_path / "log")]
    with pytest.raises(ScoringError, match=r"lacks 1 of 2 ids: b; .* has 1 extra ids: c"):
        results.main(["merge", *words, "--num_jobs", "1", "--out_dir", str(tmp_path)])


def test_ids_with_markup_are_scored(tmp_path):
    """Parentheses end the text in a trn file."""
    names = ["a$(x)", "b;`y`", "c(", "d)(", "e*{}"]
    lines = [format_line(Utterance(f"s({n}", n, ["w"])) for n in names]
    (tmp_path / "ref.trn").write_text("\n".join(lines) + "\n")
    read = read_trn(tmp_path / "ref.trn")
    assert [u.tokens for u in read] == [["w"]] * 5
    assert len({u.name for u in read}) == len({u.speaker for u in read}) == 5
    assert report(read, read, "x").count("Scores: (#C #S #D #I) 1 0 0 0") == 5


# -- LRS3's text files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Text:  HELLO WORLD\nConf:  3\n", "HELLO WORLD"),
        (b"\xef\xbb\xbfText:  HELLO WORLD\r\nConf:  3\r\n", "HELLO WORLD"),
        ("Text:  A\x85B\u2028C".encode(), "A\x85B\u2028C"),
    ],
)
def test_transcripts_are_read_whole(tmp_path, content, words):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text_file(tmp_path / "a.txt").text == words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with 'Text:'"),
        (b"Text:  CAF\xc9\n", "is not UTF-8"),
        (b"Text: A\n\nWORD START END ASDSCORE\nA 0.1\n", "a.txt:4: expected 'WORD START END"),
        (b"Text: A\n\nWORD START END ASDSCORE\nA x y 1\n", "a.txt:4: expected 'WORD START END"),
        (b"Text: A\n\nWORD START END ASDSCORE\nA 2 1 1\n", "a.txt:4: 'A' is spoken from 2 to 1"),
        (b"Text: A\n\nWORD START END ASDSCORE\nA nan 1 1\n", "a.txt:4: 'A' is spoken from nan"),
        (
            b"Text: A\n\nWORD START END ASDSCORE\nA 0 inf 1\n",
            "a.txt:4: 'A' is spoken from 0 to inf",
        ),
    ],
)
def test_transcripts_that_are_none(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(TextFileError, match=message):
        read_text_file(tmp_path / "a.txt")


def test_names_that_no_table_can_hold_are_reported(tmp_path):
    folder = tmp_path / "test" / "s"
    folder.mkdir(parents=True)
    for name in (b"two\nlines", b"caf\xe9", b"good"):
        for suffix, content in ((b".mp4", b"x"), (b".txt", b"Text:  A\n")):
            with open(os.path.join(os.fsencode(folder), name + suffix), "wb") as file:
                file.write(content)
    corpus = LRS3Reader().read(tmp_path)
    assert [u.id for u in corpus.test] == ["s_good"]
    assert len(corpus.test_problems) == 2
    for problem in corpus.test_problems:
        assert str(problem).isprintable() and "rename it" in problem.reason
    assert safe_id(" a\tb\u2028c/d ") == "a_b_c_d"


def test_prepared_trees_that_are_no_text(tmp_path):
    (tmp_path / "train.tsv").write_bytes(b"/\n\xff\tv\ta\n")
    (tmp_path / "train.wrd").write_bytes(b"a\n")
    with pytest.raises(CorpusError, match=r"train.tsv: is not UTF-8"):
        AVHuBERTReader().read(tmp_path)
    labels = tmp_path / "labels"
    labels.mkdir()
    for content in (b"\xff,b,c\n", b'"' + b"x" * 200000 + b'",b\n', b"a,b\0,3\n"):
        (labels / "lrs3_train_transcript_lengths_seg16s.csv").write_bytes(content)
        with pytest.raises(CorpusError, match=r"seg16s.csv"):
            AutoAVSRReader().read(tmp_path)


# -- configs ---------------------------------------------------------------------------------------


BOMB = b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n".encode()
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A billion values in nine lines."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"projektor: smop\n", "projektor .*Did you mean 'projector'?"),
        (b"max_epochs: 3\n", "Did you mean 'max_epoch'?"),
        (b"1: 3\n", "unrecognized arguments: 1"),
        (b"projector: {a: [\n", "is not YAML"),
        (b"- a\n- b\n", "is not a mapping"),
        (b"a: \xff\n", "is not UTF-8"),
        (b"a: 2001-99-99\n", "is not YAML"),
        (b"a: " + b"[" * 5000 + b"\n", "is not YAML"),
        (b"a: !!python/object/apply:os.system ['touch executed']\n", "is not YAML"),
        (b"base: 3\n", "base must be a path"),
        (b"", "is not a mapping"),
        (b"  \n# only a comment\n", "is not a mapping"),
        (b"3\n", "is not a mapping"),
        (b"max_epoch: 3\n---\nmax_epoch: 4\n", "is not YAML"),
        (b"max_epoch: 3\0\n", "is not YAML"),
        ("max_epoch: 3\n".encode("utf-16"), "is not UTF-8"),
        (b"optim_conf:\n\tlr: 1.0\n", "is not YAML"),
        (b"max_epoch: 3\nmax_epoch: 5\n", "duplicate key 'max_epoch'"),
        (b"optim_conf:\n  lr: 1.0\n  lr: 2.0\n", "duplicate key 'lr'"),
        (b"optim_conf: &x {lr: *x}\n", "an alias stands for what contains it"),
        (b"a: &x [*x]\n", "an alias stands for what contains it"),
        (BOMB, "stand for more than 100000 values"),
        (b"a: *x\n", "is not YAML"),
        (b"a: !!python/object:os.system {}\n", "is not YAML"),
        (b"a: !!python/name:os.system\n", "is not YAML"),
        (b"a: !mine 3\n", "is not YAML"),
        (b"[1, 2]: 3\n", "is not YAML"),
        (b"~: 3\n", "unrecognized arguments: None"),
        (b"a: " + b"9" * 5000 + b"\n", "is not YAML"),
        (b"a: \x1b[31m\n", "is not YAML"),
        (b'a: "\\ud800"\n', "surrogates not allowed"),
        (b"a: " + b"{a: " * 2000 + b"1" + b"}" * 2000 + b"\n", "is not YAML"),
    ],
)
def test_configs_that_are_none(tmp_path, content, message, capsys):
    path = tmp_path / "train.yaml"
    path.write_bytes(content)
    with pytest.raises(SystemExit):
        get_parser().parse_args(["--config", str(path), "--output_dir", str(tmp_path)])
    said = " ".join(capsys.readouterr().err.split())
    assert message.split(".*")[-1].rstrip("?") in said
    assert not os.path.exists("executed")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfmax_epoch: 3\n",
        b"max_epoch: 3\r\n",
        b"max_epoch: '3'\n",
        b"optim_conf: &x {lr: 1.0}\nscheduler_conf: {<<: *x, lr: 2.0}\nmax_epoch: 3\n",
    ],
    ids=["BOM", "CRLF", "quotes", "merged"],
)
def test_configs_as_editors_write_them(tmp_path, content):
    path = tmp_path / "train.yaml"
    path.write_bytes(content)
    words = ["--config", str(path), "--output_dir", str(tmp_path)]
    assert get_parser().parse_args(words).max_epoch == 3


@pytest.mark.parametrize(
    "value", ["{lr: 1, lr: 2}", "2001-99-99", "9" * 5000, "[" * 5000, "&x [*x]"]
)
def test_assignments_that_are_none(value):
    with pytest.raises(ConfigError, match=r"the value is not YAML: \S") as raised:
        parse_assignment(f"optim_conf={value}")
    assert "\n" not in str(raised.value)


def test_a_config_of_itself(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="is its own base"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("part", "conf", "message"),
    [
        ("projector", {"num_expert": 3}, "Did you mean 'num_experts'"),
        ("projector", {"num_experts": 2, "top_k": 3}, "top_k is 3, but there are 2 experts"),
        ("projector", {"num_experts": "three"}, "num_experts is 'three'"),
        ("projector", {"top_k": 0}, "top_k is 0"),
        ("projector", {"hidden_size": -4}, "hidden_size is -4"),
        ("projector", {"routing": "dedrr"}, "expected one of: jejr, jedr, dedr"),
        ("projector", {"downsample": {"vidoe": 2}}, "Did you mean 'video'"),
        ("projector", {"downsample": 3}, "downsample is 3, expected a dictionary"),
        ("projector", 7, "projector_conf is 7"),
        ("decoder", {"lora": 64}, "lora is 64"),
        ("decoder", {"lora": {"r": "64"}}, "r is the string '64'"),
        ("decoder", {"lora": {"r": 2, "alhpa": 3}}, "unknown settings"),
        ("decoder", {"promt": "x"}, "Did you mean 'prompt'"),
        ("audio_frontend", {"modle": "x"}, "Did you mean 'model'"),
    ],
)
def test_settings_that_are_none(model_args, tmp_path, part, conf, message):
    args = model_args()
    if isinstance(conf, dict):
        conf = {**getattr(args, f"{part}_conf"), **conf}
    setattr(args, f"{part}_conf", conf)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    with pytest.raises(ValueError, match=message) as raised:
        AVSRTask.load_model(str(tmp_path / "config.yaml"))
    assert "\n" not in str(raised.value)


def test_a_base_model_of_another_size_is_named(model_args, make_llm, tmp_path):
    args = model_args()
    model = AVSRTask.build_model(args)
    state = model.state_dict()
    other = model_args(base_fingerprints=dict(args.base_fingerprints))
    other.decoder_conf = {**other.decoder_conf, "model": make_llm("mistral")}
    with pytest.raises(RuntimeError, match=r"base models differ .*decoder\.llm \(expected"):
        AVSRTask.build_model(other)
    wide = model_args(projector_conf={"routing": "dedr", "num_experts": 3, "hidden_size": 8})
    with pytest.raises(RuntimeError, match=r"of another shape: .*\(checkpoint .*, model "):
        AVSRTask.build_model(wide).load_state_dict(state)


def test_a_tokenizer_with_more_tokens_than_the_llm_has_rows(model_args, local_tokenizer, tmp_path):
    tokenizer = local_tokenizer(with_bos=True)
    tokenizer.add_tokens([f"<extra_{i}>" for i in range(9)])
    tokenizer.save_pretrained(tmp_path)
    args = model_args()
    args.decoder_conf = {**args.decoder_conf, "tokenizer": str(tmp_path)}
    with pytest.raises(ValueError, match=r"ids up to \d+, but the LLM .* different"):
        AVSRTask.build_model(args)


def test_yaml_is_read_without_objects(tmp_path):
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("!!python/object/apply:os.system ['true']")
