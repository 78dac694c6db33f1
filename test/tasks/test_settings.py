import argparse

import pytest

from espnet_smop.tasks.settings import data_problems


@pytest.mark.parametrize(("name", "fits"), [("speech", False), ("speech_feats", True)])
def test_masks_of_features_need_features(tmp_path, name, fits):
    data = []
    for file, of in (("text", "text"), ("scp", name)):
        (tmp_path / file).touch()
        data.append((str(tmp_path / file), of, "text"))
    args = argparse.Namespace(
        audio_frontend="whisper", video_frontend=None, allow_variable_data_keys=False,
        train_data_path_and_name_and_type=data, valid_data_path_and_name_and_type=[],
        train_shape_file=[], valid_shape_file=[],
        preprocessor_conf={"feats_mask": {"max_width": 10, "stride": 50}},
    )  # fmt: skip
    found = list(data_problems(args))
    assert fits == (not found)
    assert all("the train data has none: give --feats_cache" in line for line in found)
    args.preprocessor_conf = {"feats_mask": None}
    assert not list(data_problems(args))
