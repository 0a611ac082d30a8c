/* Fuzzes lines of the admin socket, with a configuration in force and nobody connected. The first byte says of which level the asker is. Every command has an answer, which ends as
 * answers do; who may only look changes nothing; nothing gets out of its line. */
#include "mctunnel/admin/answer.h"
#include "mctunnel/admin/command.h"
#include "mctunnel/admin/commands.h"
#include "mctunnel/admin/show.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/log.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/event/loop.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LINE_MAX = 4095, PIECES = 1000, TURNS = 4 };

static struct conf_tunnel tunnel = { .name = (char *)"site-a", .agents = { (char *[]){ (char *)"edge-1", (char *)"a\tb\"c" }, 2 },
				      .services = { (char *[]){ (char *)"web-*", (char *)"ssh" }, 2 } };
static struct conf conf = { .refs = 1, .global = { .maxconn = 100 }, .tunnels = &tunnel, .tunnels_n = 1 };

static struct {
	bool ready;
	unsigned changes; /* stop, reload */
	bool more;
} f;

static struct conf *get_conf(void)
{
	return &conf;
}

static const char *get_phase(void)
{
	return "serving";
}

static uint64_t get_restarts(void)
{
	return 0;
}

static void stop(bool softly)
{
	f.changes++;
}

static uint32_t reload(void)
{
	return ++f.changes;
}

static int reloaded(uint32_t number, const char **notes)
{
	*notes = "";
	return 1;
}

static const struct admin_state state = { get_conf, get_phase, get_restarts, stop, reload, reloaded };

static void on_more(void *owner)
{
	f.more = true;
}

/* false: it waits for something, which is no fault. */
static bool next_piece(struct answer *a)
{
	f.more = false;
	if (answer_more(a))
		return true;
	for (int i = 0; i < TURNS && !f.more; i++)
		loop_turn(0);
	return f.more;
}

static void ask(const struct asker *k, const char *line)
{
	struct answer *a = commands_ask(k, line, on_more, NULL);
	char last = '\n';
	int pieces = 0;

	BUG_ON(!a);
	while (next_piece(a)) {
		BUG_ON(++pieces > PIECES || a->broken || a->text.len > (256u << 10));
		if (a->text.len > 0)
			last = a->text.v[a->text.len - 1];
		BUG_ON(a->text.len > 0 && memchr(a->text.v, '\0', a->text.len));
		if (a->done)
			break;
	}
	BUG_ON(a->done && last != '\n');
	answer_drop(a);
	loop_turn(0);
}

static void prepare(void)
{
	char err[100];

	if (f.ready)
		return;
	BUG_ON(log_open("/dev/null", LOG_TEXT, LOG_ALERT, err, sizeof(err)) != 0);
	f.ready = true;
	loop_init();
	show_clear();
	frontend_init(&conf, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct asker k = { .state = &state, .uid = -1, .pid = -1, .where = "unix:@fuzz", .who = "-" };
	char line[LINE_MAX + 1], *rest = line, *command;
	unsigned before;

	if (size == 0 || size > LINE_MAX)
		return 0;
	prepare();
	memcpy(line, data + 1, size - 1);
	line[size - 1] = '\0';
	k.level = data[0] % 3;
	k.numbers = data[0] & 4;
	before = f.changes;
	while ((command = commands_cut(&rest)))
		ask(&k, command);
	BUG_ON(k.level == 0 && f.changes != before);
	return 0;
}
