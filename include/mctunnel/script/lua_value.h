/* What functions for scripts are made with: arguments, fields of tables, objects that hold something of ours. All of these may raise an error of
 * Lua's: they are called inside script_run() only. */
#ifndef MCTUNNEL_SCRIPT_LUA_VALUE_H
#define MCTUNNEL_SCRIPT_LUA_VALUE_H

#include "mctunnel/conf/schema.h"

#include <stddef.h>
#include <stdint.h>

struct lua_State;
struct luaL_Reg;

/* An argument, a number or a text as the configuration has it, from 1 to max. */
uint64_t script_check_number(struct lua_State *L, int arg, enum kind kind, uint64_t max);

/* A field of the table on top. */
void script_set_int(struct lua_State *L, const char *key, int64_t value);
void script_set_str(struct lua_State *L, const char *key, const char *value); /* NULL: nil */
void script_set_function(struct lua_State *L, const char *key, int (*function)(struct lua_State *L), int upvalue);

void script_push_words(struct lua_State *L, const char *const *words, size_t n); /* a list, on top of the stack */

struct box { /* an object of a script's */
	void *held;              /* owned; NULL: nothing, until all that can fail is done */
	void (*put)(void *held); /* when the object is collected; NULL: nothing is to be done */
};
void script_new_type(struct lua_State *L, const char *type, const struct luaL_Reg *methods);
struct box *script_new_box(struct lua_State *L, const char *type, void (*put)(void *held)); /* on top of the stack */
void *script_unbox(struct lua_State *L, int arg, const char *type); /* what an argument holds */
void *script_self(struct lua_State *L);                             /* what the object holds whose method is called */

#endif
