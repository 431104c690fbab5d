// Drawing of progress.
#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace aionbd {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval{200};
constexpr std::chrono::milliseconds kPlainInterval{5000};
constexpr size_t kBarWidth = 24;

}  // namespace

std::string with_thousands(uint64_t number) {
  std::string digits = std::to_string(number);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string human_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_seconds(double seconds) {
  const auto whole = static_cast<uint64_t>(std::max(0.0, seconds) + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

std::string progress_line(const ProgressState& state, double seconds, size_t bar_width) {
  std::string line;
  if (state.share) {
    const double share = std::clamp(*state.share, 0.0, 1.0);
    if (bar_width > 0) {
      const auto filled = static_cast<size_t>(share * static_cast<double>(bar_width));
      line += '[' + std::string(filled, '#') + std::string(bar_width - filled, '.') + "] ";
    }
    line += fmt::format("{:3.0f} %  ", share * 100);
  }
  const auto per_second = [seconds](uint64_t count) {
    return static_cast<uint64_t>(static_cast<double>(count) / seconds);
  };
  if (state.counts_rows) {
    line += with_thousands(state.rows) + " rows";
    if (seconds > 0) line += "  " + with_thousands(per_second(state.rows)) + " rows/s";
    line += "  " + human_bytes(state.bytes);
  } else {
    line += human_bytes(state.bytes);
    if (seconds > 0) line += "  " + human_bytes(per_second(state.bytes)) + "/s";
  }
  if (state.refused > 0) line += "  " + with_thousands(state.refused) + " refused";
  // The first moments of a run say nothing about its end.
  constexpr double kShareMin = 0.001;
  if (state.share && *state.share > kShareMin && *state.share < 1) {
    line += "  " + human_seconds(seconds * (1 - *state.share) / *state.share) + " left";
  }
  return line;
}

Progress::Progress(const Clock& clock, Style style)
    : clock_(clock),
      quiet_(style == Style::kQuiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(clock.now()),
      last_(start_) {}

std::chrono::milliseconds Progress::interval() const {
  return terminal_ ? kTerminalInterval : kPlainInterval;
}

void Progress::update(const ProgressState& state) {
  const MonotonicTime now = clock_.now();
  if (quiet_ || now - last_ < interval()) return;
  last_ = now;
  if (terminal_) {
    // Carriage return, then erase to the end of the line.
    fmt::print(stderr, "\r{}\x1b[K", progress_line(state, seconds(), kBarWidth));
    std::fflush(stderr);
    drawn_ = true;
  } else {
    fmt::print(stderr, "{}\n", progress_line(state, seconds(), 0));
  }
}

void Progress::clear() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

double Progress::seconds() const {
  return static_cast<double>(elapsed_us(start_, clock_.now())) / 1e6;
}

}  // namespace aionbd
