// Pages in, lines out.
#include "cli/exporter.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <zstd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "cli/import_state.h"

namespace aionbd {
namespace {

/// Bytes gathered before they are written.
constexpr size_t kBufferBytes = size_t{1} << 20;
/// Fewest points to ask for at once when the server refuses more.
constexpr uint32_t kPageRowsMin = 1;

/// Where lines go: a file or standard output, compressed or not. Thread safety: single owner.
class LineSink {
 public:
  static Result<std::unique_ptr<LineSink>> open(FileSystem& files, const ExportOptions& options) {
    auto sink = std::unique_ptr<LineSink>(new LineSink(files, options.path));
    if (options.zstd) {
      sink->compressor_ = ZSTD_createCCtx();
      if (sink->compressor_ == nullptr) return resource_exhausted("no memory to compress");
      ZSTD_CCtx_setParameter(sink->compressor_, ZSTD_c_compressionLevel, options.zstd_level);
      ZSTD_CCtx_setParameter(sink->compressor_, ZSTD_c_checksumFlag, 1);
      sink->packed_.resize(ZSTD_CStreamOutSize());
    }
    if (options.path != "-") {
      ASSIGN_OR_RETURN(sink->file_, files.create(sink->temporary_));
    }
    return sink;
  }
  ~LineSink() {
    ZSTD_freeCCtx(compressor_);
    if (file_ == nullptr || finished_) return;
    file_.reset();
    // The export failed: what remains of it must not be mistaken for one.
    const Status ignored = files_.remove(temporary_);
    static_cast<void>(ignored);
  }
  LineSink(const LineSink&) = delete;
  LineSink& operator=(const LineSink&) = delete;

  Status write_line(std::string_view line) {
    buffer_.append(line).push_back('\n');
    return buffer_.size() >= kBufferBytes ? flush(ZSTD_e_continue) : Status();
  }

  /// The last call: everything is where it belongs, durably.
  Status finish() {
    RETURN_IF_ERROR(flush(ZSTD_e_end));
    if (file_ == nullptr) {
      return std::fflush(stdout) == 0 ? Status() : io_error("cannot write to standard output");
    }
    RETURN_IF_ERROR(file_->sync());
    RETURN_IF_ERROR(files_.rename(temporary_, path_));
    finished_ = true;
    return files_.sync_dir(directory_of(path_));
  }

  uint64_t bytes() const { return bytes_; }

 private:
  LineSink(FileSystem& files, const std::string& path)
      : files_(files), path_(path), temporary_(path + ".tmp") {}

  Status flush(ZSTD_EndDirective directive) {
    if (compressor_ == nullptr) {
      RETURN_IF_ERROR(put(buffer_));
      buffer_.clear();
      return {};
    }
    ZSTD_inBuffer from{buffer_.data(), buffer_.size(), 0};
    while (true) {
      ZSTD_outBuffer to{packed_.data(), packed_.size(), 0};
      const size_t left = ZSTD_compressStream2(compressor_, &to, &from, directive);
      if (ZSTD_isError(left) != 0) return internal_error("zstd cannot compress");
      RETURN_IF_ERROR(put(std::string_view(packed_.data(), to.pos)));
      if (directive == ZSTD_e_end ? left == 0 : from.pos == from.size) break;
    }
    buffer_.clear();
    return {};
  }

  Status put(std::string_view bytes) {
    bytes_ += bytes.size();
    if (file_ != nullptr) return file_->append(as_bytes_of(bytes));
    if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size()) {
      return io_error("cannot write to standard output");
    }
    return {};
  }

  FileSystem& files_;
  const std::string path_;
  const std::string temporary_;
  std::unique_ptr<WritableFile> file_;
  ZSTD_CCtx* compressor_ = nullptr;
  std::string buffer_, packed_;
  uint64_t bytes_ = 0;
  bool finished_ = false;
};

/// Writes the points of one page; `*cursor` becomes the text of the next cursor, "" at the end.
/// Returns how many points there were.
Result<uint64_t> write_page(std::string body, LineSink& sink, std::string* cursor) {
  const Status odd = internal_error("the server's page of points is not understood");
  body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  simdjson::ondemand::array points;
  if (parser.iterate(body).get(document) != simdjson::SUCCESS ||
      document["points"].get(points) != simdjson::SUCCESS) {
    return odd;
  }
  uint64_t rows = 0;
  for (auto point : points) {
    simdjson::ondemand::object object;
    std::string_view line;
    if (point.get(object) != simdjson::SUCCESS ||
        object.raw_json().get(line) != simdjson::SUCCESS) {
      return odd;
    }
    if (line.find('\n') != std::string_view::npos) return odd;
    RETURN_IF_ERROR(sink.write_line(line));
    ++rows;
  }
  std::string_view next;
  simdjson::ondemand::value value;
  if (document["next_cursor"].get(value) != simdjson::SUCCESS) return odd;
  bool null = false;
  if (value.is_null().get(null) != simdjson::SUCCESS) return odd;
  if (null) {
    cursor->clear();
    return rows;
  }
  next = value.raw_json_token();
  while (!next.empty() && (next.back() == ' ' || next.back() == '\n')) next.remove_suffix(1);
  *cursor = next;
  if (rows == 0) return odd;  // an empty page that is not the last would go on for ever
  return rows;
}

Result<uint64_t> points_count(HttpClient& client, const std::string& path,
                              const std::atomic<bool>& stop) {
  ASSIGN_OR_RETURN(const ServerResponse response, client.call("GET", path, {}, &stop));
  RETURN_IF_ERROR(status_of(response));
  simdjson::dom::parser parser;
  uint64_t count = 0;
  if (parser.parse(response.body)["point_count"].get(count) != simdjson::SUCCESS) {
    return internal_error("the server's description of the collection is not understood");
  }
  return count;
}

}  // namespace

Result<ExportSummary> run_export(FileSystem& files, const ExportOptions& options,
                                 const std::atomic<bool>& stop, Progress& progress) {
  HttpClient client(options.client);
  const std::string path = "/collections/" + url_encoded(options.collection);
  ASSIGN_OR_RETURN(const uint64_t total, points_count(client, path, stop));
  ASSIGN_OR_RETURN(const auto sink, LineSink::open(files, options));
  ExportSummary summary;
  std::string cursor;
  uint32_t page_rows = options.page_rows;
  while (true) {
    if (stop) return unavailable("stopped; nothing was written");
    const std::string body =
        fmt::format("{{\"limit\":{},\"include_values\":true,\"include_payload\":true{}{}}}",
                    page_rows, cursor.empty() ? "" : ",\"cursor\":", cursor);
    ASSIGN_OR_RETURN(const ServerResponse response,
                     client.call("POST", path + "/points/scroll", body, &stop));
    if (response.status == 400 && page_rows > kPageRowsMin && summary.rows == 0) {
      page_rows /= 2;  // the server's page limit may be lower than ours
      continue;
    }
    RETURN_IF_ERROR(status_of(response));
    ASSIGN_OR_RETURN(const uint64_t rows, write_page(response.body, *sink, &cursor));
    summary.rows += rows;
    summary.bytes = sink->bytes();
    ProgressState state;
    state.rows = summary.rows;
    state.bytes = summary.bytes;
    if (total > 0) state.share = static_cast<double>(summary.rows) / static_cast<double>(total);
    progress.update(state);
    if (cursor.empty()) break;
  }
  RETURN_IF_ERROR(sink->finish());
  progress.clear();
  summary.bytes = sink->bytes();
  summary.seconds = progress.seconds();
  return summary;
}

}  // namespace aionbd
