// NumPy's .npy, format versions 1 to 3: a magic, a version, the length of a header, the header (the
// text of a Python dictionary with `descr`, `fortran_order` and `shape`), the numbers.
// Described in the NumPy manual under "numpy.lib.format".
//
// The header is read by a small scanner of exactly the literals NumPy writes there: strings, True,
// False and tuples of integers. Nothing is evaluated.
#include <array>
#include <charconv>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cli/dense_reader.h"
#include "cli/row_source.h"

namespace aionbd {
namespace {

/// NumPy's own headers are under 200 bytes; its reader stops at 10,000 by default.
constexpr size_t kHeaderBytesMax = size_t{64} << 10;
/// NumPy's limit on the number of axes.
constexpr size_t kAxesMax = 32;

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<uint64_t> shape;
};

/// Scans the dictionary text. Thread safety: single owner.
class NpyHeaderScanner {
 public:
  explicit NpyHeaderScanner(std::string_view text) : text_(text) {}

  Result<NpyHeader> scan() {
    NpyHeader header;
    bool descr = false, order = false, shape = false;
    bool good = take('{');
    while (good && !take('}')) {
      const auto key = string();
      good = key && take(':');
      if (!good) break;
      if (*key == "descr" && !descr) {
        const auto value = string();
        good = descr = value.has_value();
        if (value) header.descr = *value;
      } else if (*key == "fortran_order" && !order) {
        const auto value = boolean();
        good = order = value.has_value();
        if (value) header.fortran_order = *value;
      } else if (*key == "shape" && !shape) {
        good = shape = tuple(&header.shape);
      } else {
        good = false;
      }
      // The comma after the last entry is optional.
      if (good && !take(',')) good = peek('}');
    }
    skip_blanks();
    if (!good || !descr || !order || !shape || position_ != text_.size()) {
      return corruption("the .npy header is damaged, or of a kind this program does not read");
    }
    return header;
  }

 private:
  void skip_blanks() {
    while (position_ < text_.size() &&
           (text_[position_] == ' ' || text_[position_] == '\n' || text_[position_] == '\t')) {
      ++position_;
    }
  }
  bool peek(char c) {
    skip_blanks();
    return position_ < text_.size() && text_[position_] == c;
  }
  bool take(char c) {
    if (!peek(c)) return false;
    ++position_;
    return true;
  }
  std::optional<std::string_view> string() {
    const char quote = peek('"') ? '"' : '\'';
    if (!take(quote)) return std::nullopt;
    const size_t end = text_.find(quote, position_);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view out = text_.substr(position_, end - position_);
    position_ = end + 1;
    return out;
  }
  std::optional<bool> boolean() {
    skip_blanks();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(position_).starts_with(word)) {
        position_ += word.size();
        return value;
      }
    }
    return std::nullopt;
  }
  bool tuple(std::vector<uint64_t>* out) {
    if (!take('(')) return false;
    while (!take(')')) {
      skip_blanks();
      uint64_t value = 0;
      const char* begin = text_.data() + position_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
      if (error != std::errc() || out->size() == kAxesMax) return false;
      position_ += static_cast<size_t>(end - begin);
      out->push_back(value);
      if (!take(',') && !peek(')')) return false;
    }
    return true;
  }

  std::string_view text_;
  size_t position_ = 0;
};

Status set_element(const std::string& descr, DenseLayout* layout) {
  struct Row {
    std::string_view name;
    ElementType type;
  };
  static constexpr Row kRows[] = {
      {"f2", ElementType::kF16}, {"f4", ElementType::kF32}, {"f8", ElementType::kF64},
      {"i1", ElementType::kI8},  {"u1", ElementType::kU8},  {"i2", ElementType::kI16},
      {"u2", ElementType::kU16}, {"i4", ElementType::kI32}, {"u4", ElementType::kU32},
      {"i8", ElementType::kI64}, {"u8", ElementType::kU64}, {"b1", ElementType::kU8},
  };
  const std::string_view text = descr;
  if (text.size() == 3 && std::string_view("<>|=").find(text[0]) != std::string_view::npos) {
    for (const Row& row : kRows) {
      if (row.name != text.substr(1)) continue;
      layout->type = row.type;
      layout->big_endian = text[0] == '>';
      return {};
    }
  }
  return invalid_argument("the .npy file holds '" + descr.substr(0, 32) +
                          "'; f2, f4, f8 and integers of 1 to 8 bytes can be read");
}

}  // namespace

Result<std::unique_ptr<RowSource>> open_npy(std::unique_ptr<ByteStream> stream) {
  std::array<unsigned char, 8> start{};
  RETURN_IF_ERROR(stream->read_exactly(std::as_writable_bytes(std::span(start))));
  if (std::memcmp(start.data(), "\x93NUMPY", 6) != 0) return corruption("not an .npy file");
  const unsigned version = start[6];
  if (version < 1 || version > 3) {
    return corruption("unknown .npy version " + std::to_string(version));
  }
  const size_t length_bytes = version == 1 ? 2 : 4;
  std::array<unsigned char, 4> raw{};
  RETURN_IF_ERROR(
      stream->read_exactly(std::as_writable_bytes(std::span(raw.data(), length_bytes))));
  const size_t length = raw[0] | static_cast<size_t>(raw[1]) << 8 |
                        static_cast<size_t>(raw[2]) << 16 | static_cast<size_t>(raw[3]) << 24;
  if (length > kHeaderBytesMax) {
    return corruption("the .npy header claims " + std::to_string(length) + " bytes");
  }
  std::string text(length, '\0');
  RETURN_IF_ERROR(stream->read_exactly(std::as_writable_bytes(std::span(text.data(), length))));
  ASSIGN_OR_RETURN(const NpyHeader header, NpyHeaderScanner(text).scan());

  DenseLayout layout;
  RETURN_IF_ERROR(set_element(header.descr, &layout));
  if (header.shape.size() != 2) {
    return invalid_argument("the array has " + std::to_string(header.shape.size()) +
                            " axes, want 2: rows and numbers per row");
  }
  layout.rows = header.shape[0];
  layout.columns = header.shape[1];
  layout.header_bytes = start.size() + length_bytes + length;
  // With one row or one column both orders are the same bytes.
  if (header.fortran_order && layout.rows > 1 && layout.columns > 1) {
    return invalid_argument(
        "the array is stored column by column (Fortran order); save it with "
        "numpy.ascontiguousarray");
  }
  return open_dense(std::move(stream), layout);
}

}  // namespace aionbd
