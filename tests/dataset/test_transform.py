import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from capsbench.dataset.transform import Transform, augment, output_shape, prepare
from capsbench.errors import BadInput


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def pictures(count=3, height=12, width=12, channels=2, seed=0):
    return generator(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


transforms = st.builds(
    Transform,
    resize=st.none() | st.integers(1, 20),
    canvas=st.none() | st.integers(1, 30),
    crop=st.none() | st.integers(1, 20),
    standardise=st.booleans(),
    brightness=st.floats(0.0, 1.0),
    contrast=st.floats(0.0, 1.0),
    shift=st.integers(0, 12),
)


@given(transform=transforms, training=st.booleans(), height=st.integers(1, 14), width=st.integers(1, 14))
def test_the_promised_shape_is_the_shape(transform, training, height, width):
    """Every transform gives finite float32 images of the shape it promises, or is refused by both."""
    images = pictures(2, height, width)
    try:
        shape = output_shape(transform, (height, width, 2))
    except BadInput:
        with pytest.raises(BadInput):
            augment(prepare(images, transform), transform, generator(), training=training)
        return
    out = augment(prepare(images, transform), transform, generator(), training=training)
    assert out.shape == (2, *shape)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


@given(side=st.integers(1, 30), height=st.integers(1, 14), width=st.integers(1, 14), level=st.integers(0, 255))
def test_resize_keeps_bounds_and_flat_images(side, height, width, level):
    """Resizing never leaves the range of the image, and a flat image stays flat."""
    images = np.concatenate([pictures(1, height, width), np.full((1, height, width, 2), level, np.uint8)])
    out = prepare(images, Transform(resize=side))
    assert out.min() >= images.min() / 255 - 1e-6
    assert out.max() <= images.max() / 255 + 1e-6
    assert out[1] == pytest.approx(level / 255, abs=1e-6)


@given(side=st.integers(9, 20))
def test_a_canvas_frames_with_zeros(side):
    """The image stands in the middle of its canvas, to the bit, and zeros are all around it."""
    images = pictures(2, 8, 9)
    out = prepare(images, Transform(canvas=side))
    top, left = (side - 8) // 2, (side - 9) // 2
    np.testing.assert_array_equal(out[:, top : top + 8, left : left + 9], images.astype(np.float32) / np.float32(255))
    out[:, top : top + 8, left : left + 9] = 0.0
    assert not out.any()


def test_area_mean_by_hand():
    """Halving an image averages its blocks of 2x2."""
    images = pictures(2, 8, 8)
    blocks = images.astype(np.float64).reshape(2, 4, 2, 4, 2, 2).mean(axis=(2, 4)) / 255
    assert prepare(images, Transform(resize=4)) == pytest.approx(blocks, abs=1e-6)


def test_bilinear_keeps_a_ramp():
    """Resizing by a ratio that does not divide keeps a linear ramp linear between the outer pixel centres."""
    ramp = np.broadcast_to(np.arange(0, 200, 20, dtype=np.uint8)[:, None, None], (1, 10, 10, 1))
    out = prepare(np.ascontiguousarray(ramp), Transform(resize=7))[0, :, 0, 0]
    expected = ((np.arange(7) + 0.5) * 10 / 7 - 0.5) * 20 / 255
    assert out == pytest.approx(expected, abs=1e-6)


def test_without_transform_images_are_scaled():
    """The default transform divides by 255 and nothing else, in training and test."""
    images = pictures()
    for training in (True, False):
        out = augment(prepare(images, Transform()), Transform(), generator(), training=training)
        np.testing.assert_array_equal(out, images.astype(np.float32) / np.float32(255))


@given(seed=st.integers(0, 1000), crop=st.integers(1, 12))
def test_random_crops_are_windows_of_the_image(seed, crop):
    """A training crop is one of the windows of its image, and test takes the central one."""
    images = prepare(pictures(2), Transform())
    transform = Transform(crop=crop)
    windows = np.lib.stride_tricks.sliding_window_view(images, (crop, crop), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    for image, all_windows in zip(augment(images, transform, generator(seed), training=True), windows, strict=True):
        assert (all_windows == image).all(axis=(2, 3, 4)).any()
    start = (12 - crop) // 2
    centre = augment(images, transform, generator(seed), training=False)
    np.testing.assert_array_equal(centre, images[:, start : start + crop, start : start + crop])


def test_crops_reach_every_corner():
    """Among many crops and shifts each legal place occurs, the extreme ones included."""
    index = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1).repeat(600, axis=0)
    cropped = augment(index, Transform(crop=4), generator(), training=True)
    assert set(cropped[:, 0, 0, 0].astype(int)) == {6 * y + x for y in range(3) for x in range(3)}
    shifted = augment(index + 1, Transform(shift=1), generator(), training=True)
    centres = {6 * y + x + 1 for y in (1, 2, 3) for x in (1, 2, 3)}
    assert set(shifted[:, 2, 2, 0].astype(int)) == centres


def test_a_shift_fills_with_zeros():
    """A shifted image of ones keeps its size and shows zeros only in whole rows and columns at the edges."""
    ones = np.ones((200, 5, 5, 1), np.float32)
    moved = augment(ones, Transform(shift=2), generator(), training=True)[..., 0]
    counts = {int(image.sum()) for image in moved}
    assert counts == {a * b for a in (3, 4, 5) for b in (3, 4, 5)}
    assert all(np.linalg.matrix_rank(image) == 1 for image in moved)


@given(seed=st.integers(0, 100), contrast=st.floats(0.0, 1.0))
def test_standardised_images_have_mean_zero_and_variance_one(seed, contrast):
    """Standardising fixes mean and variance over all pixels and channels, whatever the augmentation before it."""
    transform = Transform(standardise=True, crop=8, brightness=0.3, contrast=contrast / 2)
    out = augment(prepare(pictures(seed=seed), transform), transform, generator(seed), training=True)
    assert out.mean(axis=(1, 2, 3), dtype=np.float64) == pytest.approx(0.0, abs=1e-5)
    assert out.var(axis=(1, 2, 3), dtype=np.float64) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_blank_image_standardises_to_zeros(level):
    """An image without contrast becomes zeros, not noise or infinities."""
    images = prepare(np.full((1, 9, 9, 2), level, np.uint8), Transform())
    assert not augment(images, Transform(standardise=True), generator(), training=False).any()


def test_brightness_adds_one_number_an_image():
    """Brightness moves all pixels of an image alike, within its bound, and images differently."""
    images = prepare(pictures(50), Transform())
    change = augment(images, Transform(brightness=0.25), generator(), training=True) - images
    assert np.ptp(change, axis=(1, 2, 3)).max() < 1e-6
    assert 0.2 < np.abs(change).max() <= 0.25 + 1e-6
    assert len(np.unique(change[:, 0, 0, 0].round(5))) > 40


def test_contrast_stretches_about_each_channels_mean():
    """Contrast keeps the mean of every channel and scales the deviation by one factor an image."""
    images = prepare(pictures(50), Transform())
    out = augment(images, Transform(contrast=0.5), generator(), training=True)
    assert out.mean(axis=(1, 2)) == pytest.approx(images.mean(axis=(1, 2)), abs=1e-5)
    factors = out.std(axis=(1, 2)) / images.std(axis=(1, 2))
    assert factors[:, 0] == pytest.approx(factors[:, 1], abs=1e-4)
    assert 0.5 - 1e-4 <= factors.min() < 0.7
    assert 1.3 < factors.max() <= 1.5 + 1e-4


def test_chance_comes_from_the_generator_alone():
    """Equal generators give equal batches, others differ, the input stays, and test mode draws nothing."""
    transform = Transform(resize=10, crop=8, brightness=0.2, contrast=0.2, shift=2, standardise=True)
    images = prepare(pictures(8), transform)
    before = images.copy()
    first, again, other = (augment(images, transform, generator(seed), training=True) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(images, before)
    rng = generator()
    state = rng.bit_generator.state
    tests = [augment(images, transform, rng, training=False) for _ in range(2)]
    np.testing.assert_array_equal(*tests)
    assert rng.bit_generator.state == state


def test_impossible_transforms_are_refused():
    """A crop or shift beyond the resized image is refused with what would be legal."""
    with pytest.raises(BadInput, match=r"crop 33 .* 32x32, legal is 1 to 32"):
        output_shape(Transform(resize=32, crop=33), (96, 96, 2))
    with pytest.raises(BadInput, match=r"shift by 28 .* legal is 0 to 27"):
        output_shape(Transform(shift=28), (28, 28, 1))


def test_a_suite_can_hold_a_transform():
    """Strict JSON gives a transform, with defaults for what is left out."""
    read = TypeAdapter(Transform).validate_json('{"resize": 48, "crop": 32, "brightness": 1}', strict=True)
    assert read == Transform(resize=48, crop=32, brightness=1.0)


@pytest.mark.parametrize(
    "text",
    [
        '{"resiz": 3}',
        '{"resize": "3"}',
        '{"resize": 0}',
        '{"contrast": 1e999}',
        '{"brightness": -0.1}',
        '{"shift": -1}',
    ],
)
def test_a_suite_cannot_hold_nonsense(text):
    """Unknown keys, wrong types and numbers out of range are refused when a suite is read."""
    with pytest.raises(ValidationError):
        TypeAdapter(Transform).validate_json(text, strict=True)
