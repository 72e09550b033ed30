"""The user's own models: factories, files, translation, and everything that is refused in one line."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeprivacy.defenses import Batch, make_defense
from edgeprivacy.device_runner import Queries, open_runner
from edgeprivacy.errors import EXIT_USAGE, ModelError

pytestmark = pytest.mark.tflite

HEAD = "import numpy\n"
# Keras 3 stands in for a user's own `import keras`.
FACTORIES = {
    "given": """
def build(keras, classes, input_shape):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.BatchNormalization()(keras.layers.Dense(16, activation="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
""",
    "tensorflow's": """
def build():
    import tensorflow as tf
    keras = tf.keras
    return keras.Sequential([keras.Input((12,)), keras.layers.Dense(16, activation="relu"),
        keras.layers.BatchNormalization(), keras.layers.Dense(3, activation="softmax")])
""",
    "sequential": """
def build():
    import keras
    return keras.Sequential([keras.Input((12,)), keras.layers.Dense(16, activation="relu"),
        keras.layers.BatchNormalization(), keras.layers.Dense(3, activation="softmax")])
""",
    "functional": """
def build():
    import keras
    x = inputs = keras.Input((12,))
    x = keras.layers.Dense(16, activation="relu")(x)
    x = keras.layers.Add()([x, keras.layers.Dense(16, activation="tanh")(x)])
    return keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(3)(x)))
""",
}
REFUSED = {
    "raises": ("def build():\n    raise RuntimeError('no weights\\nat home')", "RuntimeError"),
    "exits": ("def build():\n    raise SystemExit('bye')", "SystemExit"),
    "asks": ("def build(depth):\n    return 1", "depth"),
    "none": ("def build():\n    return None", "no Keras model"),
    "number": ("def build():\n    return 3", "no Keras model"),
    "shape": (
        "def build(keras):\n    return keras.Sequential([keras.Input((5,)), "
        "keras.layers.Dense(3, activation='softmax')])",
        "rows of another shape",
    ),
    "classes": (
        "def build(keras):\n    return keras.Sequential([keras.Input((12,)), "
        "keras.layers.Dense(4, activation='softmax')])",
        "another number of classes",
    ),
    "logits": (
        "def build(keras):\n    return keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])",
        "must end in a softmax",
    ),
    "sigmoids": (
        "def build(keras):\n    return keras.Sequential([keras.Input((12,)), "
        "keras.layers.Dense(3, activation='sigmoid')])",
        "must end in a softmax, or in one sigmoid unit",
    ),
    "two-outputs": (
        "def build(keras):\n    x = keras.Input((12,))\n    "
        "return keras.Model(x, [keras.layers.Dense(3, activation='softmax')(x) for _ in range(2)])",
        "one input and one output",
    ),
    "unbuilt": (
        "def build(keras):\n    return keras.Sequential([keras.layers.Dense(3, activation='softmax')])",
        "not told its input shape",
    ),
    "subclassed": (
        "def build(keras):\n    class Net(keras.Model):\n        def __init__(self):\n"
        "            super().__init__()\n            self.d = keras.layers.Dense(3, activation='softmax')\n"
        "        def call(self, x):\n            return self.d(x)\n    return Net()",
        "subclassed",
    ),
    "subclassed3": (
        "import keras\nclass Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n"
        "        self.d = keras.layers.Dense(3, activation='softmax')\n    def call(self, x):\n"
        "        return self.d(x)\ndef build():\n    net = Net()\n    net.build((None, 12))\n    return net",
        "subclassed",
    ),
    "custom3": (
        "import keras\nclass Twice(keras.layers.Layer):\n    def call(self, x):\n        return x + x\n"
        "def build():\n    return keras.Sequential([keras.Input((12,)), Twice(), "
        "keras.layers.Dense(3, activation='softmax')])",
        "cannot be translated",
    ),
}


def factory(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(HEAD + text)
    return f"{path}:build"


@pytest.mark.parametrize("name", FACTORIES)
def test_factories_of_both_keras_train_prune_and_convert(tools, tmp_path, name) -> None:
    source = factory(tmp_path, name, FACTORIES[name])
    session, rows = tools.fresh(model__source=source), tools.material()
    session.check()
    original, _ = session.train(rows, 1)
    made = session.compress(original, rows, make_defense("none"), tools.training_rows(rows), 1)
    facts, expected = session.convert(
        made, "float32", rows.calibration.x, tmp_path / "m.tflite", rows.validation.x
    )
    answered = open_runner("host").collect(
        [tmp_path / "m.tflite"], Queries(rows.validation.x, rows.validation.ids, rows.validation.y)
    )
    np.testing.assert_allclose(answered[0].probabilities, expected, atol=1e-5)
    assert [round(w.sparsity * w.size) for w in facts.weights][:-1] == [
        round(0.6 * w.size) for w in facts.weights[:-1]
    ]


def test_tensorflow_s_keras_is_the_one_that_tfmot_takes_and_keras_3_is_not_imported() -> None:
    program = (
        "import sys, edgeprivacy.backends.tflite.backend, tensorflow as tf\n"
        "print(tf.keras.Model.__module__.split('.')[0], 'keras' in sys.modules, 'sklearn' in sys.modules)\n"
        "import keras\nprint(keras.__version__[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tf_keras", "False", "False", "3"]


def test_a_translated_model_answers_as_the_keras_3_model(tools) -> None:
    import keras as keras3

    from edgeprivacy.backends.tflite.translation import translate_keras3

    layers = keras3.layers
    x = inputs = keras3.Input((8, 8, 3))
    x = shortcut = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x)))
    x = layers.Add()([layers.Conv2D(6, 3, padding="same")(x), shortcut])
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x)))
    model = keras3.Model(inputs, layers.Dense(3, activation="softmax")(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    rows = rng.normal(size=(20, 8, 8, 3)).astype(np.float32)
    translated = translate_keras3(model)
    np.testing.assert_allclose(translated(rows), model(rows), atol=1e-6)
    assert type(translated).__module__.startswith("tf_keras")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_one_line(tools, tmp_path, name) -> None:
    text, message = REFUSED[name]
    with pytest.raises(ModelError, match=message) as caught:
        tools.fresh(model__source=factory(tmp_path, name, text))
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in str(caught.value)
    assert f"{name}.py" in str(caught.value) or "Keras 3 model" in str(caught.value)
    if "subclassed" in name or name in ("none", "number", "custom3"):
        assert "keras" in caught.value.hint


def test_built_in_conv_nets_take_images_only(tools) -> None:
    with pytest.raises(ModelError, match="takes images"):
        tools.fresh(model__source="cnn")


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "saved"])
def test_a_trained_file_is_the_model_and_its_weights(tools, keras, tmp_path, name) -> None:
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(10, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    path = tmp_path / name
    model.save(str(path))
    session, rows = tools.fresh(model__source=str(path), model__weights=str(path)), tools.material()
    session.check()
    weights = session.load_weights(path)
    np.testing.assert_allclose(session.predict(weights, rows.train.x), model(rows.train.x), atol=1e-6)
    # without weights the file gives the form alone: a shadow starts anew
    assert not np.array_equal(session.initial_weights(1)[0], weights[0])
    assert not np.array_equal(session.initial_weights(1)[0], session.initial_weights(2)[0])


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_a_keras_3_file_is_translated(tools, tmp_path, name) -> None:
    import keras as keras3

    model = keras3.Sequential(
        [keras3.Input((12,)), keras3.layers.Dense(9), keras3.layers.Dense(3, activation="softmax")]
    )
    model.save(str(tmp_path / name))
    session, rows = tools.fresh(model__source=str(tmp_path / name)), tools.material()
    weights = session.load_weights(tmp_path / name)
    np.testing.assert_allclose(session.predict(weights, rows.train.x), model(rows.train.x), atol=1e-6)


def test_weights_alone_fit_or_are_refused(tools, keras, tmp_path) -> None:
    session, rows = tools.session(formats=["float32", "qat-int8"]), tools.material()
    trained, _ = session.train(rows, 2)
    session._model.set_weights(trained)
    path = tmp_path / "w.weights.h5"
    session._model.save_weights(str(path))
    assert all(map(np.array_equal, session.load_weights(path), trained))
    other = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3, activation="softmax")])
    other.save_weights(str(tmp_path / "other.weights.h5"))
    other.save(str(tmp_path / "other.keras"))
    (tmp_path / "text.h5").write_text("hello")
    for name, message in [
        ("other.weights.h5", "do not fit"),
        ("other.keras", "do not fit"),
        ("text.h5", "not a readable HDF5"),
        ("none.keras", "does not exist"),
    ]:
        with pytest.raises(ModelError, match=message) as caught:
            session.load_weights(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("name", ["empty.keras", "text.keras", "cut.keras", "cut.h5", "empty.h5"])
def test_damaged_model_files_are_refused(tools, keras, tmp_path, name) -> None:
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3, activation="softmax")])
    path = tmp_path / name
    model.save(str(path))
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello", "cut": content[: len(content) // 2]}[path.stem])
    with pytest.raises(ModelError) as caught:
        tools.fresh(model__source=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["l.keras", "l.h5", "l.hdf5", "l.model", "saved"])
def test_a_lambda_layer_is_code_and_refused_whatever_the_file_is_called(tools, keras, tmp_path, name) -> None:
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Lambda(lambda x: x * 1.0),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    made = tmp_path / (name if name in ("l.keras", "saved") else "l.h5")
    model.save(str(made))
    path = made.rename(tmp_path / name)
    with pytest.raises(ModelError, match="Lambda") as caught:
        tools.fresh(model__source=str(path))
    assert "factory" in caught.value.hint


def test_a_keras_3_lambda_is_refused(tools, tmp_path) -> None:
    import keras as keras3

    model = keras3.Sequential(
        [
            keras3.Input((12,)),
            keras3.layers.Lambda(lambda x: x * 1.0),
            keras3.layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(str(tmp_path / "l.keras"))
    with zipfile.ZipFile(tmp_path / "l.keras") as archive:
        assert "config.json" in archive.namelist()
    with pytest.raises(ModelError, match="Lambda"):
        tools.fresh(model__source=str(tmp_path / "l.keras"))


BINARY = """
def build(keras, input_shape):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Dense(16, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
"""


def test_one_sigmoid_output_all_the_way(tools, keras, tmp_path) -> None:
    source = factory(tmp_path, "binary", BINARY)
    session = tools.fresh(
        classes=2,
        model__source=source,
        training__learning_rate=0.01,
        formats=["float32", "int8", "qat-int8"],
    )
    rows = tools.material(classes=2)
    session.check()
    original, history = session.train(rows, 1)
    assert history["validation_accuracy"] > 0.8
    p = session.predict(original, rows.validation.x)
    assert p.shape == (60, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    arguments = rows, make_defense("wemem:swmr"), tools.training_rows(rows), 1
    made = session.quantize_aware(session.compress(original, *arguments), *arguments)
    for format in ("float32", "int8", "qat-int8"):
        path = tmp_path / f"{format}.tflite"
        facts, expected = session.convert(made, format, rows.calibration.x, path, rows.validation.x)
        assert facts.outputs[0].shape[-1] == 1
        queries = Queries(rows.validation.x, rows.validation.ids, rows.validation.y)
        answered = open_runner("host").collect([path], queries)[0].probabilities
        assert answered.shape == (60, 2)
        np.testing.assert_allclose(answered, expected, atol=1e-5 if format == "float32" else 0.15)


def test_the_loss_of_one_sigmoid_is_binary_cross_entropy(tools, keras, tmp_path) -> None:
    """One step of gradient descent by hand: Adam's first step goes by the sign of the gradient."""
    from edgeprivacy.backends.tflite.frameworks import tf
    from edgeprivacy.backends.tflite.ops import TensorFlowOps, two_class

    z = tf.constant(np.random.default_rng(0).normal(size=(50, 1)) * 3, tf.float32)
    y = np.random.default_rng(1).integers(0, 2, 50)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = make_defense("none").loss(TensorFlowOps(), Batch(two_class(z), tf.constant(y)))
    expected = keras.losses.BinaryCrossentropy(from_logits=True)(y[:, None], z)
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    by_hand = (1 / (1 + np.exp(-z.numpy()[:, 0])) - y) / 50
    np.testing.assert_allclose(tape.gradient(loss, z)[:, 0], by_hand, atol=1e-6)
