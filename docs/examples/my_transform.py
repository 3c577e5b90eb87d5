import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    """Returns the model's inputs. `inputs` has a sparse tensor for each raw column."""
    return {
        "price": tft.scale_to_z_score(_dense(inputs["price"], 0.0)),
        "site": tft.compute_and_apply_vocabulary(_dense(inputs["site"], ""), num_oov_buckets=1),
    }


def _dense(column, default):
    """Returns the column as a dense tensor [batch], with `default` for missing values."""
    shaped = tf.sparse.reset_shape(column, [column.dense_shape[0], 1])
    return tf.squeeze(tf.sparse.to_dense(shaped, default), axis=1)
