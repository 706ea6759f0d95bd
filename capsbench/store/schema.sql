-- The tables of run.sqlite, version 2. docs/results-schema.md describes every table and column.

CREATE TABLE run (id TEXT NOT NULL, header TEXT NOT NULL);

CREATE TABLE start (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, commit_hash TEXT, dirty INTEGER,
    machine TEXT NOT NULL, packages TEXT NOT NULL, suites TEXT NOT NULL
);

CREATE TABLE data (id INTEGER PRIMARY KEY, splits TEXT NOT NULL UNIQUE);

CREATE TABLE content (id INTEGER PRIMARY KEY, description TEXT NOT NULL UNIQUE);

CREATE TABLE record (
    id INTEGER PRIMARY KEY, start_id INTEGER REFERENCES start, schema INTEGER NOT NULL, run TEXT NOT NULL,
    case_id TEXT NOT NULL UNIQUE, network TEXT NOT NULL, dataset TEXT NOT NULL, backend TEXT NOT NULL,
    mode TEXT NOT NULL, device TEXT NOT NULL, batch INTEGER NOT NULL, routing_iterations INTEGER,
    seed INTEGER NOT NULL, threads INTEGER NOT NULL, precision TEXT NOT NULL, devices INTEGER NOT NULL,
    allocator TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, notes TEXT NOT NULL,
    network_hash TEXT NOT NULL, protocol_hash TEXT NOT NULL, environment_hash TEXT NOT NULL,
    data_id INTEGER NOT NULL REFERENCES data, content_id INTEGER NOT NULL REFERENCES content,
    parity_oracle TEXT, forward_max_relative_error REAL, gradient_relative_error REAL, forward_limit REAL,
    gradient_limit REAL, parity_passed INTEGER, rounding_float64_error REAL, rounding_drawn_forward_error REAL,
    rounding_drawn_gradient_error REAL, parallel_devices INTEGER, parallel_steps INTEGER,
    parallel_loss_deviation REAL, parallel_limit REAL, parallel_passed INTEGER, drift_float32_steps INTEGER,
    drift_float64_steps INTEGER, drift_float64_deviation REAL, op_calls INTEGER, step_profile_seconds REAL,
    step_profile_bytes INTEGER, step_bare_seconds REAL, forward_profile_seconds REAL, forward_profile_bytes INTEGER,
    forward_bare_seconds REAL, forward_peak_bytes INTEGER,
    perturbed_images INTEGER, perturbed_batch INTEGER, perturbed_forward_error REAL, perturbed_gradient_error REAL,
    perturbed_draws INTEGER, steps_taken INTEGER, steps_batch INTEGER, steps_error REAL, steps_limit REAL,
    steps_worst TEXT, parity_failure TEXT
);

CREATE TABLE metric_name (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, unit TEXT NOT NULL, direction TEXT NOT NULL, kind TEXT NOT NULL
);
CREATE TABLE metric (
    record_id INTEGER NOT NULL REFERENCES record, metric_id INTEGER NOT NULL REFERENCES metric_name,
    position INTEGER NOT NULL, value, low REAL, high REAL, contended INTEGER NOT NULL, samples TEXT,
    PRIMARY KEY (record_id, metric_id)
) WITHOUT ROWID;

CREATE TABLE op_name (
    id INTEGER PRIMARY KEY, step TEXT NOT NULL, op TEXT NOT NULL, native TEXT NOT NULL, layer TEXT,
    phase TEXT NOT NULL, routing_iteration INTEGER
);
CREATE INDEX op_name_index ON op_name (native, op, layer);
CREATE TABLE op (
    record_id INTEGER NOT NULL REFERENCES record, position INTEGER NOT NULL,
    op_id INTEGER NOT NULL REFERENCES op_name, calls INTEGER NOT NULL, self_seconds REAL NOT NULL,
    allocated_bytes INTEGER NOT NULL, live_bytes_at_peak INTEGER NOT NULL, PRIMARY KEY (record_id, position)
) WITHOUT ROWID;

CREATE TABLE tensor_name (
    id INTEGER PRIMARY KEY, step TEXT NOT NULL, name TEXT, op TEXT, layer TEXT, phase TEXT, routing_iteration INTEGER
);
CREATE INDEX tensor_name_index ON tensor_name (name, op, layer);
CREATE TABLE live_tensor (
    record_id INTEGER NOT NULL REFERENCES record, position INTEGER NOT NULL,
    tensor_id INTEGER NOT NULL REFERENCES tensor_name, count INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (record_id, position)
) WITHOUT ROWID;

CREATE TABLE layer (
    record_id INTEGER NOT NULL REFERENCES record, position INTEGER NOT NULL, layer TEXT NOT NULL,
    output TEXT NOT NULL, parameters INTEGER NOT NULL, forward_flops INTEGER NOT NULL,
    train_step_flops INTEGER NOT NULL, forward_least_bytes INTEGER NOT NULL,
    train_step_least_bytes INTEGER NOT NULL, vote_bytes INTEGER NOT NULL, PRIMARY KEY (record_id, position)
) WITHOUT ROWID;

CREATE TABLE distribution (
    record_id INTEGER NOT NULL REFERENCES record, position INTEGER NOT NULL, layer TEXT NOT NULL,
    quantity TEXT NOT NULL, images INTEGER NOT NULL, count INTEGER NOT NULL, mean REAL NOT NULL,
    deviation REAL NOT NULL, least REAL NOT NULL, greatest REAL NOT NULL, quantiles TEXT NOT NULL,
    sparse_share REAL NOT NULL, hoyer REAL NOT NULL, dead_share REAL, PRIMARY KEY (record_id, position)
) WITHOUT ROWID;

CREATE TABLE routing (
    record_id INTEGER NOT NULL REFERENCES record, position INTEGER NOT NULL, layer TEXT NOT NULL,
    iteration INTEGER NOT NULL, coupling_entropy REAL NOT NULL, agreement_gain REAL NOT NULL,
    starved_share REAL NOT NULL, PRIMARY KEY (record_id, position)
) WITHOUT ROWID;

CREATE TABLE skipped_line (number INTEGER PRIMARY KEY, newer INTEGER NOT NULL);

CREATE VIEW v_metric AS
    SELECT case_id, network, dataset, backend, mode, batch, routing_iterations, seed, status,
        name AS metric, value, low, high, unit, direction, kind, contended, samples
    FROM metric JOIN metric_name ON metric_name.id = metric_id JOIN record ON record.id = record_id;

CREATE VIEW v_cost AS
    SELECT case_id, network, dataset, backend, mode, batch, routing_iterations, seed, status,
        max(CASE name WHEN 'forward_seconds' THEN value END) AS forward_seconds,
        max(CASE name WHEN 'train_step_seconds' THEN value END) AS train_step_seconds,
        max(CASE name WHEN 'images_per_second' THEN value END) AS images_per_second,
        max(CASE name WHEN 'peak_bytes' THEN value END) AS peak_bytes,
        max(CASE name WHEN 'allocated_bytes' THEN value END) AS allocated_bytes,
        max(CASE name WHEN 'train_step_flops' THEN value END) AS train_step_flops,
        max(CASE name WHEN 'parameters' THEN value END) AS parameters,
        op_calls
    FROM record LEFT JOIN metric ON record_id = record.id LEFT JOIN metric_name ON metric_name.id = metric_id
    GROUP BY record.id;

CREATE VIEW v_accuracy AS
    SELECT case_id, network, dataset, backend, mode, batch, routing_iterations, seed, status,
        max(CASE name WHEN 'accuracy' THEN value END) AS accuracy,
        max(CASE name WHEN 'error_rate' THEN value END) AS error_rate,
        max(CASE name WHEN 'validation_accuracy' THEN value END) AS validation_accuracy,
        max(CASE name WHEN 'epochs' THEN value END) AS epochs,
        max(CASE name WHEN 'epoch_seconds' THEN value END) AS epoch_seconds,
        forward_max_relative_error, gradient_relative_error, parity_passed
    FROM record LEFT JOIN metric ON record_id = record.id LEFT JOIN metric_name ON metric_name.id = metric_id
    GROUP BY record.id;

CREATE VIEW v_ops AS
    SELECT case_id, network, dataset, backend, record.mode, batch, routing_iterations, seed,
        step, op, native, layer, phase, routing_iteration, calls, self_seconds, allocated_bytes, live_bytes_at_peak
    FROM op JOIN op_name ON op_name.id = op_id JOIN record ON record.id = record_id;

CREATE VIEW v_note AS
    SELECT case_id, json_each.key AS position, json_each.value AS text FROM record, json_each(record.notes);

CREATE VIEW v_split AS
    SELECT case_id, json_each.key AS split, json_extract(json_each.value, '$.count') AS count,
        json_extract(json_each.value, '$.full_count') AS full_count,
        json_extract(json_each.value, '$.sha256') AS sha256
    FROM record JOIN data ON data.id = data_id, json_each(data.splits);
