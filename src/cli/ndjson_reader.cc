// NDJSON: one JSON object per line. Here lines are only cut apart; what is in them is judged by
// row_encoder.cc, which several threads do at once.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cli/row_source.h"

namespace aionbd {
namespace {

constexpr size_t kChunkBytes = size_t{256} << 10;

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

/// Thread safety: single owner.
class NdjsonSource : public RowSource {
 public:
  explicit NdjsonSource(std::unique_ptr<ByteStream> stream) : stream_(std::move(stream)) {}

  Status next(size_t rows_max, size_t bytes_max, RowBatch* out) override {
    *out = RowBatch{};
    out->first_row = row_;
    while (out->text_rows.size() < rows_max && out->text.size() < bytes_max) {
      const size_t begin = out->text.size();
      bool too_long = false;
      ASSIGN_OR_RETURN(const bool found, take_line(&out->text, &too_long));
      if (!found) break;
      const std::string_view line = std::string_view(out->text).substr(begin);
      if (too_long) {
        out->text_rows.push_back({row_, begin, 0, true});
      } else if (!is_blank(line)) {
        out->text_rows.push_back({row_, begin, line.size(), false});
      } else {
        out->text.resize(begin);
      }
      ++row_;
      // A file of blank lines must not keep the caller waiting for its end.
      if (row_ - out->first_row >= kBlankLinesMax + out->text_rows.size()) break;
    }
    out->text.append(kTextPaddingBytes, ' ');
    out->rows_taken = row_ - out->first_row;
    return {};
  }

  Status skip(uint64_t rows) override {
    std::string line;
    for (uint64_t i = 0; i < rows; ++i) {
      line.clear();
      bool too_long = false;
      ASSIGN_OR_RETURN(const bool found, take_line(&line, &too_long));
      if (!found) return corruption("the file has fewer lines than to be skipped");
      ++row_;
    }
    return {};
  }

  uint32_t dimension() const override { return 0; }
  std::optional<uint64_t> rows_count() const override { return std::nullopt; }
  uint64_t consumed() const override {
    return stream_->consumed() - std::min<uint64_t>(stream_->consumed(), unread());
  }
  uint64_t file_bytes() const override { return stream_->file_bytes(); }

 private:
  static constexpr uint64_t kBlankLinesMax = 1U << 20;

  /// Bytes taken from the stream and not yet given out; of compressed input an estimate of nothing.
  uint64_t unread() const { return stream_->content_bytes() ? end_ - position_ : 0; }

  /// Appends the next line without its '\n' to `out`; false at the end of the file. A line over
  /// kLineBytesMax is passed over.
  Result<bool> take_line(std::string* out, bool* too_long) {
    const size_t begin = out->size();
    bool any = false;
    while (true) {
      if (position_ == end_) {
        chunk_.resize(kChunkBytes);
        ASSIGN_OR_RETURN(end_, stream_->read(std::as_writable_bytes(std::span(chunk_))));
        position_ = 0;
        if (end_ == 0) return any;
      }
      any = true;
      const char* from = chunk_.data() + position_;
      const void* newline = std::memchr(from, '\n', end_ - position_);
      const size_t take = newline != nullptr
                              ? static_cast<size_t>(static_cast<const char*>(newline) - from)
                              : end_ - position_;
      if (!*too_long && out->size() - begin + take > kLineBytesMax) {
        *too_long = true;
        out->resize(begin);
      }
      if (!*too_long) out->append(from, take);
      position_ += take;
      if (newline != nullptr) {
        ++position_;
        return true;
      }
    }
  }

  std::unique_ptr<ByteStream> stream_;
  std::vector<char> chunk_;
  size_t position_ = 0, end_ = 0;  // in chunk_
  uint64_t row_ = 0;
};

}  // namespace

Result<std::unique_ptr<RowSource>> open_ndjson(std::unique_ptr<ByteStream> stream) {
  return std::unique_ptr<RowSource>(std::make_unique<NdjsonSource>(std::move(stream)));
}

}  // namespace aionbd
