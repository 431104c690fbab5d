// Reading, sending, bisecting and accounting of an import.
#include "cli/importer.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "cli/import_state.h"

namespace aionbd {
namespace {

/// Body to aim for: below the server's default limit of 16 MiB. A server with a lower one answers
/// 413 and the aim is halved.
constexpr size_t kBodyBytesAim = size_t{15} << 20;
/// Numbers read at once; their text is about three times as long.
constexpr size_t kBatchBytesMax = size_t{8} << 20;
/// Nothing right among so many: the rows do not fit the collection, and asking for each of a
/// million would only take long.
constexpr uint64_t kRefusedStartMax = 1000;
constexpr std::chrono::seconds kStateInterval{2};
constexpr std::string_view kBodyStart = "{\"points\":[";

/// What the server says about the collection, or what it was made with.
struct Target {
  uint32_t dimension = 0;
  IdType id_type = IdType::kU64;
};

Result<Target> target_of(const std::string& body) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  uint64_t dim = 0;
  if (parser.parse(body).get(root) != simdjson::SUCCESS ||
      root["dimension"].get(dim) != simdjson::SUCCESS || dim == 0 || dim > kDimensionCeiling) {
    return internal_error("the server's description of the collection is not understood");
  }
  Target target{static_cast<uint32_t>(dim), IdType::kU64};
  std::string_view id_type;
  if (root["id_type"].get(id_type) == simdjson::SUCCESS && id_type == "string") {
    target.id_type = IdType::kString;
  }
  return target;
}

std::string_view metric_text(Metric metric) {
  switch (metric) {
    case Metric::kDot: return "dot";
    case Metric::kL2: return "l2";
    case Metric::kCosine: return "cosine";
  }
  return "dot";
}

/// One encoded row inside a body.
struct EncodedRow {
  uint64_t row = 0;
  size_t begin = 0;
  size_t size = 0;
};

/// A batch as the text of a request: the points separated by commas, between kBodyStart and "]}".
struct EncodedBatch {
  std::string body;
  std::vector<EncodedRow> rows;

  /// Bytes of the body that carries rows [begin, end).
  size_t body_bytes(size_t begin, size_t end) const {
    const EncodedRow& last = rows[end - 1];
    return kBodyStart.size() + last.begin + last.size - rows[begin].begin + 2;
  }
};

/// One import under way. Thread safety: safe.
class Import {
 public:
  Import(FileSystem& files, const ImportOptions& options, const std::atomic<bool>& stop)
      : files_(files),
        options_(options),
        stop_(stop),
        points_path_("/collections/" + url_encoded(options.collection) + "/points") {}

  Status prepare();
  void run(Progress& progress);
  /// REQUIRES: `run` returned. The first error, if any.
  Result<ImportSummary> finish(double seconds);

 private:
  struct Worker {
    Worker(const ClientOptions& client_options, const RowEncoding& encoding)
        : client(client_options), encoder(encoding) {}
    HttpClient client;
    RowEncoder encoder;
  };

  Status open_input();
  Status resume();
  Status prepare_collection();
  Status create_collection(HttpClient& client);
  Result<RowShape> first_shape();

  void work();
  bool take(RowBatch* batch);
  Status send(Worker& worker, const RowBatch& batch);
  Result<bool> send_rows(Worker& worker, const EncodedBatch& batch, size_t begin, size_t end);
  Result<bool> send_halves(Worker& worker, const EncodedBatch& batch, size_t begin, size_t end);
  Status count_accepted(const ServerResponse& response, size_t rows, size_t bytes);
  Status refuse(uint64_t row, const std::string& reason);
  void finished(const RowBatch& batch);
  void fail(const Status& status);
  Status save_state() REQUIRES(mutex_);
  uint64_t rows_done() const REQUIRES(mutex_);
  ProgressState progress_state();

  // Constant after prepare().
  FileSystem& files_;
  const ImportOptions& options_;
  const std::atomic<bool>& stop_;
  const std::string points_path_;
  std::string state_path_, refused_path_;
  InputIdentity input_;
  RowEncoding encoding_;
  std::optional<uint64_t> rows_expected_;

  std::atomic<bool> failed_{false};
  // What one request may carry, learned from refusals.
  std::atomic<size_t> rows_max_{0};
  std::atomic<size_t> body_bytes_max_{kBodyBytesAim};

  Mutex read_mutex_;
  std::unique_ptr<RowSource> source_ GUARDED_BY(read_mutex_);
  std::unique_ptr<LabelSource> labels_ GUARDED_BY(read_mutex_);
  std::optional<RowBatch> peeked_ GUARDED_BY(read_mutex_);
  bool ended_ GUARDED_BY(read_mutex_) = false;

  Mutex mutex_;
  CondVar changed_;
  uint64_t position_ GUARDED_BY(mutex_) = 0;    // rows of the file handed to workers
  std::set<uint64_t> open_ GUARDED_BY(mutex_);  // first rows of the batches under way
  size_t working_ GUARDED_BY(mutex_) = 0;
  double share_read_ GUARDED_BY(mutex_) = 0;
  ImportSummary summary_ GUARDED_BY(mutex_);
  Status error_ GUARDED_BY(mutex_);
  MonotonicTime state_saved_ GUARDED_BY(mutex_){};
  std::unique_ptr<WritableFile> refused_file_ GUARDED_BY(mutex_);
};

Status Import::prepare() {
  state_path_ = options_.state_path.empty() ? options_.path + ".import-state" : options_.state_path;
  refused_path_ =
      options_.refused_path.empty() ? options_.path + ".refused.ndjson" : options_.refused_path;
  rows_max_ = options_.batch_rows;
  RETURN_IF_ERROR(open_input());
  RETURN_IF_ERROR(resume());
  RETURN_IF_ERROR(prepare_collection());
  const MutexLock lock(mutex_);
  state_saved_ = system_clock_source().now();
  summary_.state_path = state_path_;
  summary_.refused_path = refused_path_;
  return {};
}

Status Import::open_input() {
  ASSIGN_OR_RETURN(input_, identify_input(options_.path));
  InputFormat format{};
  if (options_.format) {
    format = *options_.format;
  } else {
    ASSIGN_OR_RETURN(format, detect_format(files_, options_.path));
  }
  const MutexLock lock(read_mutex_);
  auto source = open_row_source(files_, options_.path, format, options_.dataset);
  if (!source.has_value()) return source.error().with_context(options_.path);
  source_ = std::move(*source);
  rows_expected_ = source_->rows_count();
  if (rows_expected_ && options_.limit) {
    rows_expected_ = std::min(*rows_expected_, *options_.limit);
  }
  if (options_.labels_path.empty()) return {};
  if (source_->dimension() == 0) {
    return invalid_argument("--labels goes with files of numbers, not with NDJSON");
  }
  ASSIGN_OR_RETURN(auto stream, open_byte_stream(files_, options_.labels_path));
  auto labels = LabelSource::open(std::move(stream));
  if (!labels.has_value()) return labels.error().with_context(options_.labels_path);
  labels_ = std::move(*labels);
  const auto rows = source_->rows_count();
  if (rows && *rows != labels_->count()) {
    return invalid_argument(
        fmt::format("{} has {} labels for {} rows", options_.labels_path, labels_->count(), *rows));
  }
  return {};
}

Status Import::resume() {
  if (!options_.resume) return {};
  ASSIGN_OR_RETURN(const auto state, load_import_state(files_, state_path_));
  if (!state) return {};  // nothing was begun, so this is the beginning
  if (!(state->input == input_)) {
    return failed_precondition("the file is not the one the import began with (" + state_path_ +
                               "): start again without --resume");
  }
  const std::string target = options_.client.url.authority() + points_path_;
  if (state->target != target) {
    return failed_precondition("the import began with another target, " + state->target +
                               ": start again without --resume");
  }
  {
    const MutexLock lock(read_mutex_);
    RETURN_IF_ERROR(source_->skip(state->rows_done));
    if (labels_ != nullptr) RETURN_IF_ERROR(labels_->skip(state->rows_done));
  }
  const MutexLock lock(mutex_);
  position_ = state->rows_done;
  summary_.rows_skipped = state->rows_done;
  summary_.refused = state->rows_refused;
  return {};
}

Status Import::prepare_collection() {
  HttpClient client(options_.client);
  const std::string path = "/collections/" + url_encoded(options_.collection);
  ASSIGN_OR_RETURN(ServerResponse response, client.call("GET", path, {}, &stop_));
  if (response.status == 404 && options_.create) {
    RETURN_IF_ERROR(create_collection(client));
    ASSIGN_OR_RETURN(response, client.call("GET", path, {}, &stop_));
  }
  RETURN_IF_ERROR(status_of(response));
  ASSIGN_OR_RETURN(const Target target, target_of(response.body));
  encoding_ = {options_.id_field, options_.start_id, target.id_type};
  const MutexLock lock(read_mutex_);
  if (source_->dimension() != 0 && source_->dimension() != target.dimension) {
    return invalid_argument(
        fmt::format("the rows of the file do not fit the collection: got {} numbers, want {}",
                    source_->dimension(), target.dimension));
  }
  return {};
}

Status Import::create_collection(HttpClient& client) {
  ASSIGN_OR_RETURN(const RowShape shape, first_shape());
  std::optional<Metric> metric = options_.metric;
  if (!metric) {
    const MutexLock lock(read_mutex_);
    metric = source_->metric();
  }
  std::string body = "{\"name\":";
  append_json_string(options_.collection, &body);
  body += fmt::format(",\"dimension\":{}", shape.dimension);
  if (metric) body += fmt::format(",\"metric\":\"{}\"", metric_text(*metric));
  if (options_.id_type.value_or(shape.id_type) == IdType::kString) {
    body += ",\"id_type\":\"string\"";
  }
  body += '}';
  ASSIGN_OR_RETURN(const ServerResponse response,
                   client.call("POST", "/collections", body, &stop_));
  // Somebody else, or an earlier try whose answer was lost, may have made it.
  if (response.status == 409) return {};
  return status_of(response);
}

Result<RowShape> Import::first_shape() {
  const MutexLock lock(read_mutex_);
  if (source_->dimension() != 0) return RowShape{source_->dimension(), IdType::kU64};
  RowBatch batch;
  RETURN_IF_ERROR(source_->next(options_.batch_rows, kBatchBytesMax, &batch));
  RowEncoder encoder({options_.id_field, 0, IdType::kU64});
  Status last = invalid_argument("the file has no rows");
  for (size_t i = 0; i < batch.size(); ++i) {
    auto shape = encoder.shape_of(batch, i);
    if (shape.has_value()) {
      peeked_ = std::move(batch);
      return shape;
    }
    last = shape.error().with_context("row " + std::to_string(batch.row_of(i)));
  }
  return last.with_context("cannot learn the dimension of the new collection from its first rows");
}

void Import::run(Progress& progress) {
  std::vector<std::thread> workers;
  {
    const MutexLock lock(mutex_);
    working_ = options_.connections;
  }
  for (size_t i = 0; i < options_.connections; ++i) workers.emplace_back([this] { work(); });
  while (true) {
    progress.update(progress_state());
    MutexLock lock(mutex_);
    if (working_ == 0) break;
    changed_.wait_until(mutex_, std::chrono::steady_clock::now() + progress.interval());
    if (working_ == 0) break;
  }
  for (std::thread& worker : workers) worker.join();
  progress.clear();
}

void Import::work() {
  Worker worker(options_.client, encoding_);
  RowBatch batch;
  while (take(&batch)) {
    const Status sent = send(worker, batch);
    if (!sent.ok()) {
      fail(sent);
      break;
    }
    finished(batch);
  }
  const MutexLock lock(mutex_);
  summary_.retries += worker.client.retries();
  --working_;
  changed_.notify_all();
}

bool Import::take(RowBatch* batch) {
  const MutexLock reading(read_mutex_);
  if (ended_ || failed_ || stop_) return false;
  Status status;
  if (peeked_) {
    *batch = std::move(*peeked_);
    peeked_.reset();
  } else {
    uint64_t rows = rows_max_;
    if (options_.limit) {
      const MutexLock lock(mutex_);
      rows = std::min<uint64_t>(rows, *options_.limit - std::min(*options_.limit, position_));
    }
    if (rows == 0) {
      ended_ = true;
      return false;
    }
    status = source_->next(static_cast<size_t>(rows), kBatchBytesMax, batch);
  }
  if (status.ok() && labels_ != nullptr && batch->size() > 0) {
    status = labels_->next(batch->size(), &batch->labels);
  }
  if (!status.ok()) {
    fail(status.with_context(options_.path));
    return false;
  }
  if (batch->rows_taken == 0) {
    ended_ = true;
    return false;
  }
  const MutexLock lock(mutex_);
  position_ = batch->first_row + batch->rows_taken;
  open_.insert(batch->first_row);
  if (source_->file_bytes() > 0) {
    share_read_ =
        static_cast<double>(source_->consumed()) / static_cast<double>(source_->file_bytes());
  }
  return true;
}

Status Import::send(Worker& worker, const RowBatch& batch) {
  EncodedBatch encoded;
  encoded.body = kBodyStart;
  if (batch.dimension > 0) {
    // Pixels take 4 characters with their comma, embeddings about 12.
    constexpr size_t kNumberBytesGuess = 12;
    encoded.body.reserve(batch.values.size() * kNumberBytesGuess + batch.size() * 64);
  } else {
    encoded.body.reserve(batch.text.size() + batch.size() + 64);
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    const size_t before = encoded.body.size();
    if (!encoded.rows.empty()) encoded.body += ',';
    const size_t begin = encoded.body.size();
    const Status status = worker.encoder.append_point(batch, i, &encoded.body);
    if (!status.ok()) {
      if (status.code() != Code::kInvalidArgument) return status;
      encoded.body.resize(before);
      RETURN_IF_ERROR(refuse(batch.row_of(i), status.message()));
      continue;
    }
    encoded.rows.push_back(
        {batch.row_of(i), begin - kBodyStart.size(), encoded.body.size() - begin});
  }
  encoded.body += "]}";
  if (encoded.rows.empty()) return {};
  ASSIGN_OR_RETURN([[maybe_unused]] const bool all_accepted,
                   send_rows(worker, encoded, 0, encoded.rows.size()));
  return {};
}

/// Sends rows [begin, end), in parts where the server wants less at once. True if none was refused.
Result<bool> Import::send_rows(Worker& worker, const EncodedBatch& batch, size_t begin,
                               size_t end) {
  const size_t rows = end - begin;
  const size_t bytes = batch.body_bytes(begin, end);
  if (rows > 1 && (rows > rows_max_ || bytes > body_bytes_max_)) {
    return send_halves(worker, batch, begin, end);
  }
  Result<ServerResponse> answer = ServerResponse{};
  if (rows == batch.rows.size()) {
    answer = worker.client.call("POST", points_path_, batch.body, &stop_);
  } else {
    std::string body(kBodyStart);
    body.append(batch.body, kBodyStart.size() + batch.rows[begin].begin,
                bytes - kBodyStart.size() - 2);
    body += "]}";
    answer = worker.client.call("POST", points_path_, body, &stop_);
  }
  if (!answer.has_value()) return answer.error();
  const ServerResponse& response = *answer;
  const Status status = status_of(response);
  if (status.ok()) {
    RETURN_IF_ERROR(count_accepted(response, rows, bytes));
    return true;
  }
  if (response.status != 400 && response.status != 413) return status;
  if (rows == 1) {
    RETURN_IF_ERROR(refuse(batch.rows[begin].row, status.message()));
    return false;
  }
  if (response.status == 413) {
    // Another worker may have learned a lower limit meanwhile.
    size_t seen = body_bytes_max_;
    while (seen > bytes / 2 && !body_bytes_max_.compare_exchange_weak(seen, bytes / 2)) {
    }
  }
  ASSIGN_OR_RETURN(const bool accepted, send_halves(worker, batch, begin, end));
  if (accepted && response.status == 400) {
    // No row was to blame, so there were too many of them for this server.
    const size_t half = (rows + 1) / 2;
    size_t seen = rows_max_;
    while (seen > half && !rows_max_.compare_exchange_weak(seen, half)) {
    }
  }
  return accepted;
}

Result<bool> Import::send_halves(Worker& worker, const EncodedBatch& batch, size_t begin,
                                 size_t end) {
  const size_t middle = begin + (end - begin) / 2;
  ASSIGN_OR_RETURN(const bool first, send_rows(worker, batch, begin, middle));
  ASSIGN_OR_RETURN(const bool second, send_rows(worker, batch, middle, end));
  return first && second;
}

Status Import::count_accepted(const ServerResponse& response, size_t rows, size_t bytes) {
  // The counts stand before the list of results, which need not be looked at.
  simdjson::ondemand::parser parser;
  const simdjson::padded_string body(response.body);
  simdjson::ondemand::document document;
  uint64_t created = 0, updated = 0;
  if (parser.iterate(body).get(document) != simdjson::SUCCESS ||
      document["created"].get(created) != simdjson::SUCCESS ||
      document["updated"].get(updated) != simdjson::SUCCESS) {
    return internal_error("the server's answer to a batch is not understood");
  }
  const MutexLock lock(mutex_);
  summary_.rows += rows;
  summary_.created += created;
  summary_.updated += updated;
  summary_.bytes += bytes;
  return {};
}

Status Import::refuse(uint64_t row, const std::string& reason) {
  const MutexLock lock(mutex_);
  if (refused_file_ == nullptr) {
    auto file = options_.resume ? files_.open_for_append(refused_path_)
                                : Result<std::unique_ptr<WritableFile>>(not_found(""));
    if (!file.has_value() && file.error().code() == Code::kNotFound) {
      file = files_.create(refused_path_);
    }
    if (!file.has_value()) return file.error().with_context("cannot write " + refused_path_);
    refused_file_ = std::move(*file);
  }
  // Lines are counted from 1, as editors do.
  std::string line = fmt::format("{{\"row\":{},\"reason\":", row + 1);
  append_json_string(reason, &line);
  line += "}\n";
  RETURN_IF_ERROR(refused_file_->append(as_bytes_of(line)));
  ++summary_.refused;
  if (summary_.rows == 0 && summary_.rows_skipped == 0 && summary_.refused >= kRefusedStartMax) {
    return invalid_argument(fmt::format(
        "the first {} rows were all refused; the last one because: {}", summary_.refused, reason));
  }
  return {};
}

void Import::finished(const RowBatch& batch) {
  const MutexLock lock(mutex_);
  open_.erase(batch.first_row);
  const MonotonicTime now = system_clock_source().now();
  if (now - state_saved_ < kStateInterval) return;
  state_saved_ = now;
  const Status saved = save_state();
  if (!saved.ok() && error_.ok()) {
    error_ = saved.with_context("cannot save the state of the import");
    failed_ = true;
  }
}

void Import::fail(const Status& status) {
  failed_ = true;
  const MutexLock lock(mutex_);
  if (error_.ok()) error_ = status;
}

uint64_t Import::rows_done() const {
  return open_.empty() ? position_ : *open_.begin();
}

Status Import::save_state() {
  ImportState state;
  state.input = input_;
  state.target = options_.client.url.authority() + points_path_;
  state.rows_done = rows_done();
  state.rows_refused = summary_.refused;
  return save_import_state(files_, state_path_, state);
}

ProgressState Import::progress_state() {
  const MutexLock lock(mutex_);
  ProgressState state;
  state.rows = summary_.rows;
  state.refused = summary_.refused;
  state.bytes = summary_.bytes;
  if (rows_expected_ && *rows_expected_ > 0) {
    state.share = static_cast<double>(rows_done()) / static_cast<double>(*rows_expected_);
  } else {
    state.share = share_read_;
  }
  return state;
}

Result<ImportSummary> Import::finish(double seconds) {
  const MutexLock reading(read_mutex_);
  const MutexLock lock(mutex_);
  summary_.seconds = seconds;
  summary_.stopped = stop_ && !ended_;
  if (refused_file_ != nullptr) RETURN_IF_ERROR(refused_file_->sync());
  if (!error_.ok() || summary_.stopped || !open_.empty()) {
    const Status saved = save_state();
    // A request cut short by the stop is no failure: it will be sent again.
    if (!error_.ok() && !stop_) return error_;
    summary_.stopped = true;
    if (!saved.ok()) return saved.with_context("cannot save the state of the import");
    return summary_;
  }
  const Status removed = files_.remove(state_path_);
  if (!removed.ok() && removed.code() != Code::kNotFound) return removed;
  return summary_;
}

}  // namespace

Result<ImportSummary> run_import(FileSystem& files, const ImportOptions& options,
                                 const std::atomic<bool>& stop, Progress& progress) {
  Import import(files, options, stop);
  RETURN_IF_ERROR(import.prepare());
  import.run(progress);
  return import.finish(progress.seconds());
}

}  // namespace aionbd
