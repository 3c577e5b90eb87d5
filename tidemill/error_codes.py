"""The error codes: a closed set of ways in which a user's input can be wrong, each with its explanation.

`docs/errors.md` is generated from these texts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """The explanation of an error code."""

    code: str
    """The code that users see and search for."""
    summary: str
    """What is wrong, in one sentence."""
    cause: str
    """What usually leads to it."""
    example: str
    """A message with this code. `tests/docs/test_error_examples.py` produces it."""
    remedy: str
    """What to do; the same test applies it to the example."""


class Code(enum.Enum):
    """The error codes, each with its explanation."""

    UNKNOWN_KEY = Explanation(
        "unknown-key",
        summary="The experiment file has a key that Tidemill does not know.",
        cause="A key is misspelled, is indented below the wrong section, or was renamed in a newer version.",
        example="lable: got the unknown key 'lable'; did you mean 'label'.",
        remedy="Write the suggested key. docs/configuration.md lists every key with its path.",
    )
    INVALID_VALUE = Explanation(
        "invalid-value",
        summary="A value in the experiment file or on the command line has the wrong type or is out of range.",
        cause=(
            "A number is outside its range, a word is not one of the choices, or two settings contradict each other."
        ),
        example="training.batch_size: got 0; use more than 0.",
        remedy="Write a value of the type and range that the message names.",
    )
    UNSUPPORTED = Explanation(
        "unsupported",
        summary="The request is meaningful, but this version or this engine cannot do it.",
        cause=(
            "The experiment asks for BigQuery, for several labels where only one is possible, or for an "
            "analyzer that the local engine does not have."
        ),
        example="source.engine: got 'bigquery'; use duckdb; BigQuery is not in this version.",
        remedy="Choose the alternative that the message names.",
    )
    MISSING_FILE = Explanation(
        "missing-file",
        summary="A file, folder, glob or object that is named does not exist.",
        cause=(
            "A path is misspelled or relative to another folder. Paths in an experiment file are relative to that file."
        ),
        example="source.tables.clicks: got '/data/clicks.csv', which matches no file; name an existing file, or a "
        "glob that matches one.",
        remedy="Correct the path, or create the file.",
    )
    MISSING_COLUMN = Explanation(
        "missing-column",
        summary="A column that is named is not among the columns that the query returns.",
        cause=(
            "The label, key, a feature, a slice or the split names a column that the SQL query does not select, "
            "or spells it differently."
        ),
        example="label: got 'click', which the query does not return; did you mean 'clicked'.",
        remedy="Select the column in the query, or correct the name.",
    )
    MISSING_PACKAGE = Explanation(
        "missing-package",
        summary="A Python package that this step needs is not installed.",
        cause=(
            "Tidemill was installed without the extra `steps`, `jax` or `beam`, or a `pkg://` URI names a "
            "package that is not installed."
        ),
        example=(
            "pkg://nycflights14: got the package 'nycflights14', which is not installed; run pip install nycflights14."
        ),
        remedy="Install the package or extra that the message names.",
    )
    UNREADABLE_FILE = Explanation(
        "unreadable-file",
        summary="A file exists but is truncated, corrupt or of another format than declared.",
        cause="A download or upload was interrupted, the file is not UTF-8, or `format` does not match the content.",
        example=(
            "clicks: /data/clicks.dat: got a damaged Parquet file (Parquet magic bytes not found in footer. Either "
            "the file is corrupted or this is not a parquet file.); replace it with an intact file."
        ),
        remedy="Write the file again, or declare its real `format`.",
    )
    MALFORMED_ROWS = Explanation(
        "malformed-rows",
        summary="More rows than tolerated are malformed. The quarantine file lists them.",
        cause=(
            "Rows have too few or too many fields, an unclosed quote, or a value that is not of the column's "
            "type. The file `quarantine` in the outputs of `ingest` has each row with its file, line and "
            "reason."
        ),
        example=(
            "clicks: /data/clicks.csv, line 9: got 1 of 200 rows (0.500%) malformed; the first: Expected Number "
            "of Columns: 3 Found: 4 in '7,3.5,1,mobile'; fix the rows or raise source.max_bad_share above 0."
        ),
        remedy=(
            "Do what the message says: correct the rows, say in `source.tables.<table>.csv` how the file is written, "
            "correct or declare the column's type in `source.tables.<table>.columns`, or raise `source.max_bad_share`."
        ),
    )
    OVER_BUDGET = Explanation(
        "over-budget",
        summary="Reading would exceed max_bytes or max_rows. Nothing was read.",
        cause="The glob matches more files than intended, or the data grew beyond the limit.",
        example="source.max_bytes: got 2,087 bytes in 1 files, more than 1,000; raise max_bytes or name fewer files.",
        remedy="Narrow the glob or the query, or raise `source.max_bytes` or `source.max_rows`.",
    )
    SQL_ERROR = Explanation(
        "sql-error",
        summary="The SQL query does not parse, bind or run.",
        cause=(
            "The query has a syntax error, names an unknown table or column, converts a value that does not "
            "convert, or reads files itself."
        ),
        example=(
            'source.sql: got Binder Error: Referenced column "prise" not found in FROM clause! Candidate bindings: '
            '"price", "clicked"; correct the query.'
        ),
        remedy="Correct the query at the position that DuckDB's message names.",
    )
    SOURCE_CHANGED = Explanation(
        "source-changed",
        summary="An input file changed between planning and reading.",
        cause="Another process wrote to the file while the run was starting.",
        example="clicks: /data/clicks.csv: got 2,097 bytes instead of the recorded 2,087; plan the run again.",
        remedy="Run again when the file is complete.",
    )
    EMPTY_INPUT = Explanation(
        "empty-input",
        summary="The query returns no rows to train on.",
        cause="A WHERE condition matches nothing, or the input files have only a header.",
        example="source.sql: got no rows; check the files and the query's conditions.",
        remedy="Widen the query, or check that the input files have rows.",
    )
    EMPTY_SPLIT = Explanation(
        "empty-split",
        summary="A split received no rows.",
        cause=(
            "The data is too small for the fractions, all rows share one time or hash value, or the split "
            "column lacks a name."
        ),
        example=(
            "split by random: got no rows for test of 2 in total (train 2, valid 0, test 0); give the split a larger "
            "fraction or more rows, or choose another split.by."
        ),
        remedy="Use more rows, or change `split.fractions`, `split.by` or `split.column`.",
    )
    DUPLICATE_KEY = Explanation(
        "duplicate-key",
        summary="The key columns do not identify a row: a value occurs twice or is null.",
        cause="A join multiplies rows, the same file is read twice, or the key needs another column.",
        example=(
            "key id: got 1 values that occur more than once, such as 7 in 2 rows; add a column that distinguishes "
            "the rows, or make the query return each key once."
        ),
        remedy="Remove duplicates in the query, or add the column to `key` that makes it unique.",
    )
    LABEL_NULL = Explanation(
        "label-null",
        summary="The label has nulls.",
        cause="The outcome is unknown for some rows, such as canceled flights.",
        example="label 'clicked': got 1 nulls; leave out the rows without a label in the query.",
        remedy="Filter these rows in the query: `WHERE clicked IS NOT NULL`.",
    )
    LABEL_ONE_CLASS = Explanation(
        "label-one-class",
        summary="The label has a single class, so nothing can be learned or measured.",
        cause="The query filters by the label, or a split by time puts all positive rows into one split.",
        example=(
            "label 'clicked': got the single value 1 in all rows; select rows of both classes, or choose another label."
        ),
        remedy="Select rows of both classes, or split differently.",
    )
    LABEL_TYPE = Explanation(
        "label-type",
        summary="The label is not binary: it must hold 0 and 1, or false and true.",
        cause="The label is text such as `yes`, a count or a fraction.",
        example=(
            "label 'clicked': got a column of type VARCHAR, with values such as 'no', 'yes'; make it 0 and 1, or "
            "false and true, in the query."
        ),
        remedy="Convert it in the query: `(clicked = 'yes')::INT AS clicked`.",
    )
    FEATURE_ALL_NULL = Explanation(
        "feature-all-null",
        summary="A feature has no value at all in the train split.",
        cause="A left join finds no partner, or the column is recorded only since a date that is not in train.",
        example=(
            "features, evaluation.slices: got no value in 156 rows of train for age; leave out these columns, or "
            "correct the query or the files' columns."
        ),
        remedy="Correct the join, or remove the feature.",
    )
    FEATURE_TYPE = Explanation(
        "feature-type",
        summary="A feature's column has a type that its kind or transform cannot take.",
        cause="A numeric feature is text, or a column is a timestamp, a decimal or a struct.",
        example=(
            "features.price: got column 'price' of type string; a numeric feature takes a number; make it categorical."
        ),
        remedy="Convert the column in the query, or change the feature's `kind`.",
    )
    LEAKAGE = Explanation(
        "leakage",
        summary="A feature predicts the label implausibly well: it is probably known only after the label.",
        cause=(
            "The query selects a column that is recorded after the outcome, such as the arrival time for a late "
            "arrival."
        ),
        example=(
            "validation.leakage: got features that predict the label implausibly well: paid (AUC 0.938); remove them, "
            "or list those that are known before the label in validation.leakage.allow."
        ),
        remedy="Remove the feature. If it really is known before the label, list it in `validation.leakage.allow`.",
    )
    SCHEMA_ANOMALY = Explanation(
        "schema-anomaly",
        summary="The data contradicts the given schema.",
        cause=(
            "A column has another type, a value outside its domain, or is missing more often than "
            "`validation.schema` allows."
        ),
        example=(
            "validation.schema: got data that contradicts the schema: visits in train: the largest value is 8, above "
            "3; visits in valid: the largest value is 7, above 3; visits in test: the largest value is 7, above 3; "
            "correct the data or the schema."
        ),
        remedy="Correct the data in the query, or update the `schema.pbtxt`.",
    )
    DRIFT = Explanation(
        "drift",
        summary="A feature's distribution differs between splits or runs by more than the threshold.",
        cause="The world changed, a source is broken, or the split by time separates seasons.",
        example=(
            "validation.drift: got features that drifted: price against valid (Jensen-Shannon 0.1001 above 0.05); "
            "price against test (Jensen-Shannon 0.0799 above 0.05); correct the data, train on newer rows, or raise "
            "the thresholds."
        ),
        remedy=(
            "Look at the feature in the report of `validate`. Correct its source, remove it, or raise "
            "`validation.drift`."
        ),
    )
    UNSEEN_VALUES = Explanation(
        "unseen-values",
        summary="Too many rows have a value of a categorical feature that train does not contain.",
        cause=(
            "A feature such as a user or an order takes new values all the time, and the split by time puts them into "
            "the newer rows. Models can learn nothing about them."
        ),
        example=(
            "validation.unseen: got features with values that train does not contain: site in test (100 % of the "
            "rows, above 50.0 %, such as 'elsewhere'); site in valid (100 % of the rows, above 50.0 %, such as "
            "'elsewhere'); remove them, split the rows in another way, train on newer rows, or raise the threshold."
        ),
        remedy=(
            "Look at the feature in the report of `validate`. Remove it, replace it with what is known about a new "
            "value, or raise `validation.unseen`."
        ),
    )
    DROPPED_TOKENS = Explanation(
        "dropped-tokens",
        summary="A vocabulary would drop too many values of a categorical feature.",
        cause="A vocabulary has a token in each line, so that TensorFlow Transform drops values with a line break.",
        example=(
            "validation.max_dropped_tokens: got features with line breaks, whose tokens a vocabulary drops: site (100 "
            "% of its values); replace the line breaks in the query: replace(site, chr(10), ' ')."
        ),
        remedy="Replace line breaks in the query, or raise `validation.max_dropped_tokens`.",
    )
    TRANSFORM_FAILED = Explanation(
        "transform-failed",
        summary="The preprocessing_fn cannot be loaded, traced or run.",
        cause="The module has a Python error, names a column that does not exist, or returns no usable feature.",
        example="transform_module, line 5: got NameError: name 'pint' is not defined; fix the transform module.",
        remedy="Correct the line that the message names.",
    )
    TRAINING_DIVERGED = Explanation(
        "training-diverged",
        summary="The loss or a score is infinite or not a number.",
        cause="The learning rate is too high, or numeric features have extreme values.",
        example=(
            "training, epoch 1/3, batch 24: got a train loss of nan; lower training.optimizer.learning_rate, and give "
            "numeric features transform: zscore."
        ),
        remedy="Lower the learning rate, or give numeric features `transform: zscore` or `log`.",
    )
    SERVING_SKEW = Explanation(
        "serving-skew",
        summary="The exported model scores rows differently from the training path.",
        cause=(
            "The transform computes different values for a single row than for a batch, for example with a "
            "batch statistic."
        ),
        example=(
            "row 0 of valid, signature serving_default: got a score of 0.614902496 from the exported model and "
            "0.581423521 from training; report this with the experiment: the transform gives other values for one "
            "row than for a batch."
        ),
        remedy="Make the preprocessing_fn compute each row by itself, with analyzers for whole-dataset values.",
    )
    NOT_BLESSED = Explanation(
        "not-blessed",
        summary="No model passed the gates, so nothing is published.",
        cause=(
            "A metric of the test split is below `min` or above `max` of its gate in `evaluation.gates`, or it is not "
            "better than the baseline by the required amount, or the log loss is above that of the base rate of train "
            "(`evaluation.better_than_base_rate`)."
        ),
        example=(
            "evaluation.gates: got dcn_v2 (not blessed: AUC 0.6000 is below 0.9); improve the model or change "
            "evaluation.gates."
        ),
        remedy="Improve the model, or change the key that the message names. The report of `evaluate` shows why.",
    )
    NO_MODEL = Explanation(
        "no-model",
        summary="No published model of this name and version exists.",
        cause=(
            "`batch_predict` runs before `train` has published, with another `--root`, or with a version that "
            "does not exist."
        ),
        example=(
            "/data/models/clicks: got version 'latest', but no version exists; publish a model of 'clicks' first, by "
            "the train pipeline."
        ),
        remedy="Run the `train` pipeline with the same root, or name an existing version.",
    )
    NO_RUN = Explanation(
        "no-run",
        summary="No recorded run matches.",
        cause="The run's id is misspelled, or the run is in another root.",
        example="run: got '2031', with which no run begin; name one of 20261129-094512.",
        remedy="List the runs with `tidemill runs list`, and pass the right `--root`.",
    )
    INCOMPLETE_ARTIFACT = Explanation(
        "incomplete-artifact",
        summary="An artifact lacks its manifest, or its bytes do not match the manifest.",
        cause="A file of an earlier run was removed or edited, or an artifact was copied partly.",
        example="/data/model/model.json: got 0 bytes, 2 in the manifest; rerun the step that wrote it.",
        remedy="Run the step again; `tidemill run --no-cache` runs every step.",
    )
    UNUSABLE_PATH = Explanation(
        "unusable-path",
        summary="The disk is full, or a path cannot be written or read.",
        cause="The disk or quota is full, the user lacks permission, or a file is where a folder is needed.",
        example=(
            "/data/part-00000.parquet: got no space left on device; free space where outputs and temporary files "
            "(TMPDIR) are written."
        ),
        remedy="Free space, or choose another path.",
    )
    NO_ENGINE = Explanation(
        "no-engine",
        summary="The steps cannot run in containers, because Docker is not installed, not running or set up wrongly.",
        cause="`tidemill run --runner docker` was called on a machine without a running Docker engine.",
        example=(
            "docker: got no such command; install Docker, or leave out the runner, so that the steps run in processes."
        ),
        remedy="Start the engine, so that `docker info` answers, or leave out `--runner docker`.",
    )
    MISSING_IMAGE = Explanation(
        "missing-image",
        summary="The Docker engine does not have the image of a step.",
        cause=(
            "The images were not built on this machine or pulled to it, or `--images` and `--tag` name others. The GPU "
            "image is missing on a machine that has built only the CPU image."
        ),
        example=(
            "docker: got no image 'tidemill-python-cpu:0.1.0'; build it with `make images`, get it with `docker pull`, "
            "or name another one with --images and --tag."
        ),
        remedy="Build or pull the image. `--cpu-only` runs all steps in the CPU image.",
    )

    @property
    def code(self) -> str:
        """What users see and search for, such as `unknown-key`."""
        return self.value.code

    @property
    def summary(self) -> str:
        """What is wrong, in one sentence."""
        return self.value.summary
