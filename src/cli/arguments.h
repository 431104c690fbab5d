// What a command of the program takes: its flags and positional arguments, declared once and bound
// to variables, and the command line that is parsed with them. CLI11 does the work; its header
// costs seconds of compile time, so that arguments.cc alone includes it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace aionbd {

/// One declared argument, to say more about it and to ask for it after parsing. A handle that may
/// be copied; valid as long as its CommandLine. Thread safety: single owner, like all of this file.
class Argument {
 public:
  Argument() = default;
  explicit Argument(CLI::Option* option) : option_(option) {}

  Argument& required();
  /// The heading above it in the help.
  Argument& group(const std::string& heading);
  /// What the help calls its value.
  Argument& value_name(const std::string& name);
  /// The help shows the value that the variable has now.
  Argument& show_default();
  /// The environment variable that gives the value when the arguments do not.
  Argument& variable(const std::string& name);
  Argument& excludes(const Argument& other);

  /// What values are allowed; anything else is a usage error that names the argument.
  /// `between` takes both ends, as the type of the variable: int, uint32_t, uint64_t or double.
  template <typename Number>
  Argument& between(Number least, Number most);
  Argument& positive();
  Argument& not_negative();
  Argument& one_of(const std::vector<std::string>& words);
  Argument& existing_file();

  /// True if the arguments or the environment gave it. REQUIRES: declared and parsed.
  bool given() const;

 private:
  CLI::Option* option_ = nullptr;
};

/// What one command takes. Variables must outlive the parsing. `names` are comma-separated flags
/// ("-k,--k"), or one word without dashes for a positional argument.
class Arguments {
 public:
  explicit Arguments(CLI::App& app) : app_(&app) {}

  /// One value; Value is std::string, int, uint32_t, uint64_t or double.
  template <typename Value>
  Argument option(const std::string& names, Value& value, const std::string& help);
  /// One value, handed to `take`.
  Argument option(const std::string& names, std::function<void(const std::string&)> take,
                  const std::string& help);
  /// True when given; a name after '!' sets false.
  Argument flag(const std::string& names, bool& value, const std::string& help);
  /// A flag that prints `text` and ends the program.
  void version(const std::string& names, const std::string& text);
  /// Stands below the help.
  void footer(const std::string& text);

  /// A command below this one.
  Arguments command(const std::string& name, const std::string& help);
  void require_command();
  /// True if this command was named. REQUIRES: parsed.
  bool named() const;

 private:
  CLI::App* app_;
};

/// The arguments of a program. Thread safety: single owner.
class CommandLine {
 public:
  CommandLine(const std::string& program, const std::string& description);
  ~CommandLine();

  Arguments arguments() { return Arguments(*app_); }
  std::string help() const;
  /// Sets the variables from the arguments that follow the program's name. What it returns is the
  /// exit code when there is nothing to run: help was asked for and printed, or the usage is wrong
  /// and the reason is on stderr.
  std::optional<int> parse(std::vector<std::string> words);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace aionbd
