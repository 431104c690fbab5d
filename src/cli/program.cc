// The table of commands. A new command is a file that declares its arguments and a row here.
#include "cli/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <new>
#include <numeric>

#include "aionbd/database.h"
#include "cli/command.h"

namespace aionbd {
namespace {

struct Command {
  const char* name;
  const char* help;
  CommandDeclare declare;
};

constexpr Command kCommands[] = {
    {"serve", "Run the server", declare_serve},
    {"healthcheck", "Ask a server whether it is ready (exit 0 or 1)", declare_healthcheck},
    {"import", "Fill a collection from a file", declare_import},
    {"export", "Write a collection to a file", declare_export},
    {"bench", "Measure recall and speed on a benchmark file", declare_bench},
    {"inspect", "Print settings, routes, metrics, or what a data file holds", declare_inspect},
    {"backup", "Back up a server or a data directory, storing only what is new", declare_backup},
    {"restore", "Make a data directory of a backup", declare_restore},
    {"verify", "Check every file of a data directory (exit 0 or 65)", declare_verify},
    {"repair", "Save what a damaged data directory still holds", declare_repair},
    {"soak", "Load a server for long, judge every answer, kill it meanwhile", declare_soak},
    {"version", "Print the version", declare_version},
};

constexpr const char* kProgramExamples = R"(Start here:
  aionbd serve --data-dir ./data
  aionbd import --collection docs docs.ndjson
  aionbd COMMAND --help

Exit codes: 0 ok, 64 bad setting or usage, 65 damaged data, 70 defect, 74 storage or network,
75 data directory in use.)";

/// Levenshtein distance; words are short.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

int unknown_command(std::string_view word) {
  fmt::print(stderr, "aionbd: no command '{}'", word.substr(0, 64));
  const auto near = near_commands(word);
  if (!near.empty()) fmt::print(stderr, "; did you mean '{}'?", fmt::join(near, "' or '"));
  fmt::print(stderr, "\nRun aionbd --help for the list.\n");
  return kExitUsage;
}

int parse_and_run(std::vector<std::string> arguments) {
  CommandLine line("aionbd", "AIONBD, a vector database for one machine");
  line.arguments().footer(kProgramExamples);
  line.arguments().version("--version", std::string(version()));
  std::vector<Arguments> commands;
  std::vector<CommandRun> runs;
  for (const Command& command : kCommands) {
    commands.push_back(line.arguments().command(command.name, command.help));
    runs.push_back(command.declare(commands.back()));
  }
  if (arguments.empty()) {
    fmt::print("{}", line.help());
    return kExitUsage;
  }
  const std::string first = arguments.front();
  const bool known = std::any_of(std::begin(kCommands), std::end(kCommands),
                                 [&first](const Command& c) { return first == c.name; });
  if (!known && !first.starts_with('-')) return unknown_command(first);
  if (const auto code = line.parse(std::move(arguments))) return *code;
  for (size_t i = 0; i < commands.size(); ++i) {
    if (commands[i].named()) return runs[i]();
  }
  fmt::print(stderr, "aionbd: no command given; run aionbd --help for the list.\n");
  return kExitUsage;
}

}  // namespace

std::vector<std::string_view> near_commands(std::string_view word) {
  constexpr size_t kDistanceMax = 3;
  constexpr size_t kNamesMax = 2;
  std::vector<std::pair<size_t, std::string_view>> found;
  for (const Command& command : kCommands) {
    const std::string_view name = command.name;
    const size_t distance =
        name.starts_with(word) && !word.empty() ? 0 : edit_distance(word.substr(0, 64), name);
    // A short word is near everything: half of it must be right.
    if (distance <= std::min(kDistanceMax, name.size() / 2)) found.emplace_back(distance, name);
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string_view> names;
  for (const auto& [distance, name] : found) {
    if (names.size() < kNamesMax) names.push_back(name);
  }
  return names;
}

int run_program(std::vector<std::string> arguments) {
  try {
    return parse_and_run(std::move(arguments));
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "aionbd: out of memory\n");
    return kExitIo;
  } catch (const std::exception& error) {
    fmt::print(stderr, "aionbd: {}\n", error.what());
    return kExitDefect;
  }
}

}  // namespace aionbd
