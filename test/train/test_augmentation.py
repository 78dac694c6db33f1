import numpy as np
import pytest

from espnet_smop.train.augmentation import adaptive_time_mask, crop, horizontal_flip


def test_centre_crop_is_the_middle():
    video = np.arange(2 * 96 * 96).reshape(2, 96, 96)
    assert np.array_equal(crop(video, random=False), video[:, 4:92, 4:92])


def test_random_crop_reaches_every_corner():
    np.random.seed(0)
    video = np.arange(96 * 96).reshape(1, 96, 96)
    corners = {int(crop(video, random=True)[0, 0, 0]) for _ in range(1000)}
    assert len(corners) == 81  # 9 x 9 places
    assert min(corners) == 0
    assert max(corners) == 8 * 96 + 8


def test_frames_below_the_crop_size_are_refused():
    with pytest.raises(ValueError, match="64x80 pixels.*stage 3"):
        crop(np.zeros((3, 80, 64)), random=False)


def test_flip_mirrors_the_width():
    video = np.random.rand(3, 4, 5)
    assert np.array_equal(horizontal_flip(video, probability=1), np.flip(video, axis=2))
    assert horizontal_flip(video, probability=0) is video


@pytest.mark.parametrize("length", [1, 5, 10, 30, 250])
def test_time_mask_silences_at_most_one_stretch_a_stride(length):
    np.random.seed(length)
    signal = np.ones((length, 3))
    for _ in range(50):
        masked = adaptive_time_mask(signal, max_width=10, stride=25)
        zero = (masked == 0).all(axis=1)
        assert ((masked == 0) == zero[:, None]).all()  # whole frames
        starts = np.sum(np.diff(np.concatenate([[0], zero.astype(int)])) == 1)
        assert starts <= -(-length // 25)
        assert zero.sum() <= 9 * -(-length // 25)
    assert (signal == 1).all()  # a copy was masked


def test_time_mask_masks_a_share_that_does_not_depend_on_the_length():
    np.random.seed(0)
    shares = [
        np.mean([(adaptive_time_mask(np.ones(n), max_width=10, stride=25) == 0).mean()
                 for _ in range(300)])
        for n in (100, 400)
    ]  # fmt: skip
    assert shares[0] == pytest.approx(4.5 / 25, rel=0.15)
    assert shares[1] == pytest.approx(shares[0], rel=0.15)
